package coalmine.runner;

import coalmine.client.Channels;
import coalmine.client.Trailers;
import coalmine.inference.GRPCInferenceServiceGrpc;
import coalmine.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import coalmine.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceFutureStub;
import coalmine.inference.ModelInferResponse;
import coalmine.inference.ModelMetadataRequest;
import coalmine.inference.ModelMetadataResponse.TensorMetadata;
import coalmine.inference.ModelReadyRequest;
import coalmine.inference.ServerMetadataRequest;
import coalmine.inference.ServerReadyRequest;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.gson.Gson;
import com.google.gson.JsonObject;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;

/** The runner of the list in Java. Reads calls, a line of JSON each; answers with a line each. */
public final class Main {
  private static final Gson GSON = new Gson();
  private static final long STREAM_S = 10;

  private final GRPCInferenceServiceFutureStub stub;
  private final GRPCInferenceServiceBlockingV2Stub blocking;
  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();

  private Main(ManagedChannel channel) {
    stub = GRPCInferenceServiceGrpc.newFutureStub(channel);
    blocking = GRPCInferenceServiceGrpc.newBlockingV2Stub(channel);
  }

  public static void main(String[] arguments) throws Exception {
    Main runner = new Main(Channels.to(arguments[0]).build());
    var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      say(runner.answer(GSON.fromJson(line, JsonObject.class)));
    }
    System.exit(0);
  }

  private static void say(Map<String, ?> told) {
    System.out.println(GSON.toJson(told));
  }

  private Map<String, Object> answer(JsonObject call) throws Exception {
    switch (call.get("call").getAsString()) {
      case "infer":
        return infer(call);
      case "load":
        return load(call);
      case "stream":
        return stream(call);
      case "ready":
        var ready = ModelReadyRequest.newBuilder().setName(call.get("model").getAsString());
        return unary(
            stub, each -> each.modelReady(ready.build()), it -> Map.of("ready", it.getReady()));
      case "server_ready":
        var serverReady = ServerReadyRequest.getDefaultInstance();
        return unary(
            stub, each -> each.serverReady(serverReady), it -> Map.of("ready", it.getReady()));
      case "server_metadata":
        var server = ServerMetadataRequest.getDefaultInstance();
        return unary(
            stub, each -> each.serverMetadata(server), it -> Map.of("server", it.getName()));
      default:
        return metadata(call);
    }
  }

  private Map<String, Object> infer(JsonObject call) {
    var asked = stub;
    if (call.has("deadline_ms")) {
      asked = asked.withDeadlineAfter(call.get("deadline_ms").getAsLong(), TimeUnit.MILLISECONDS);
    }
    if (call.has("gzip")) {
      asked = asked.withCompression("gzip");
    }
    if (call.has("metadata")) {
      asked = asked.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers(call)));
    }
    var request = Tensors.request(call);
    return unary(asked, each -> cancelled(each.modelInfer(request), call), Tensors::answer);
  }

  private ListenableFuture<ModelInferResponse> cancelled(
      ListenableFuture<ModelInferResponse> future, JsonObject call) {
    if (call.has("cancel_ms")) {
      long delay = call.get("cancel_ms").getAsLong();
      timer.schedule(() -> future.cancel(true), delay, TimeUnit.MILLISECONDS);
    }
    return future;
  }

  private static Metadata headers(JsonObject call) {
    Metadata headers = new Metadata();
    call.getAsJsonObject("metadata")
        .asMap()
        .forEach(
            (name, value) ->
                headers.put(
                    Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value.getAsString()));
    return headers;
  }

  private Map<String, Object> metadata(JsonObject call) {
    var request = ModelMetadataRequest.newBuilder().setName(call.get("model").getAsString());
    return unary(
        stub,
        each -> each.modelMetadata(request.build()),
        it ->
            Map.of(
                "model", it.getName(),
                "inputs", tensors(it.getInputsList()),
                "outputs", tensors(it.getOutputsList())));
  }

  private static List<List<Object>> tensors(List<TensorMetadata> all) {
    return all.stream()
        .map(each -> List.<Object>of(each.getName(), each.getDatatype(), each.getShapeList()))
        .toList();
  }

  /** Returns how a call ended, with what {@code told} makes of its answer. */
  private static <S extends AbstractStub<S>, A> Map<String, Object> unary(
      S stub, Function<S, ListenableFuture<A>> begin, Function<A, Map<String, Object>> told) {
    var headers = new AtomicReference<Metadata>();
    var trailers = new AtomicReference<Metadata>();
    S asked =
        stub.withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, trailers));
    try {
      Map<String, Object> answer = new LinkedHashMap<>(told.apply(begin.apply(asked).get()));
      answer.putAll(ended(Status.OK, trailers.get(), null));
      return answer;
    } catch (CancellationException error) {
      return ended(Status.CANCELLED, trailers.get(), error);
    } catch (Exception error) {
      return ended(Status.fromThrowable(error), Status.trailersFromThrowable(error), error);
    }
  }

  private static Map<String, Object> ended(Status status, Metadata trailers, Throwable error) {
    Map<String, Object> told = new HashMap<>();
    told.put("status", status.getCode().name());
    told.put("message", status.getDescription() == null ? "" : status.getDescription());
    told.put("origin", error == null ? "server" : Trailers.origin(error));
    told.put("variant", Trailers.variant(trailers));
    return told;
  }

  private Map<String, Object> stream(JsonObject call) throws Exception {
    List<Map<String, String>> answers = new ArrayList<>();
    Map<String, Object> told = new HashMap<>();
    told.put("answers", answers);
    try {
      var streamed = blocking.withDeadlineAfter(STREAM_S, TimeUnit.SECONDS).modelStreamInfer();
      for (var each : call.getAsJsonArray("requests")) {
        streamed.write(Tensors.request(each.getAsJsonObject()));
      }
      streamed.halfClose();
      for (var message = streamed.read(); message != null; message = streamed.read()) {
        String error = message.getErrorMessage();
        String id = message.getInferResponse().getId();
        answers.add(error.isEmpty() ? Map.of("id", id) : Map.of("error", error));
      }
      told.putAll(ended(Status.OK, null, null));
    } catch (io.grpc.StatusException error) {
      told.putAll(ended(error.getStatus(), error.getTrailers(), error));
    }
    return told;
  }

  private Map<String, Object> load(JsonObject call) {
    long over = System.nanoTime() + (long) (call.get("seconds").getAsDouble() * 1e9);
    Map<String, Integer> statuses = new ConcurrentHashMap<>();
    Runnable count =
        () -> statuses.merge((String) infer(call).get("status"), 1, Integer::sum);
    count.run();
    say(Map.of("loading", true));
    Runnable keepCalling =
        () -> {
          while (System.nanoTime() < over) {
            count.run();
          }
        };
    List<CompletableFuture<Void>> callers = new ArrayList<>();
    for (int at = 0; at < call.get("callers").getAsInt(); at++) {
      callers.add(CompletableFuture.runAsync(keepCalling, task -> new Thread(task).start()));
    }
    callers.forEach(CompletableFuture::join);
    return Map.of("statuses", statuses);
  }
}

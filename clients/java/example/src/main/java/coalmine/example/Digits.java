package coalmine.example;

import coalmine.client.Channels;
import coalmine.client.Output;
import coalmine.client.Tensor;
import coalmine.client.Trailers;
import coalmine.inference.GRPCInferenceServiceGrpc;
import coalmine.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import coalmine.inference.ModelInferRequest;
import coalmine.inference.ModelInferResponse;
import com.google.gson.Gson;
import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.context.Context;
import io.opentelemetry.instrumentation.grpc.v1_6.GrpcTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import java.io.File;
import java.io.IOException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Asks a server or a router for a digit, once and then by a stream: {@code Digits ADDRESS [MODEL]}.
 *
 * <p>COALMINE_CA, a PEM file, and COALMINE_TOKEN secure the channel. With
 * OTEL_EXPORTER_OTLP_ENDPOINT set, its own spans are exported there; they continue TRACEPARENT.
 */
public final class Digits {
  public static void main(String[] arguments) throws Exception {
    String target = arguments.length > 0 ? arguments[0] : "127.0.0.1:9001";
    String model = arguments.length > 1 ? arguments[1] : "digits";
    try (OpenTelemetrySdk telemetry = Traces.start()) {
      ManagedChannel channel =
          Channels.to(target, credentials())
              .intercept(GrpcTelemetry.create(telemetry).createClientInterceptor())
              .build();
      Context asked = Traces.asked(telemetry);
      Span span =
          telemetry.getTracer("example").spanBuilder("ask for a digit").setParent(asked).startSpan();
      try (var scope = asked.with(span).makeCurrent()) {
        Map<String, Object> told = ask(GRPCInferenceServiceGrpc.newBlockingV2Stub(channel), model);
        told.put("trace", span.getSpanContext().getTraceId());
        System.out.println(new Gson().toJson(told));
      } finally {
        span.end();
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
      }
    } catch (StatusException error) {
      var status = error.getStatus();
      String text = String.valueOf(status.getDescription()).lines().findFirst().orElse("");
      System.err.printf("%s from the %s: %s%n", status.getCode(), Trailers.origin(error), text);
      System.exit(1);
    }
  }

  private static Map<String, Object> ask(GRPCInferenceServiceBlockingV2Stub stub, String model)
      throws Exception {
    var headers = new AtomicReference<Metadata>();
    var trailers = new AtomicReference<Metadata>();
    ModelInferResponse answer =
        stub.withDeadlineAfter(5, TimeUnit.SECONDS)
            .withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, trailers))
            .modelInfer(request(model));
    Map<String, Object> told = new LinkedHashMap<>();
    told.put("model", answer.getModelName());
    told.put("version", answer.getModelVersion());
    told.put("variant", Trailers.variant(trailers.get()));
    told.put("logits", Output.of(answer, "logits").floats());
    told.put("streamed", stream(stub, model, 3));
    return told;
  }

  private static ModelInferRequest request(String model) {
    float[] pixels = new float[64];
    Arrays.fill(pixels, 1);
    return Tensor.request(model, Tensor.of("pixels", pixels, 1, 64)).build();
  }

  /** Returns how many answers came, one for each request. */
  private static int stream(GRPCInferenceServiceBlockingV2Stub stub, String model, int count)
      throws Exception {
    var call = stub.withDeadlineAfter(5, TimeUnit.SECONDS).modelStreamInfer();
    for (int at = 0; at < count; at++) {
      call.write(request(model));
    }
    call.halfClose();
    int answers = 0;
    for (var message = call.read(); message != null; message = call.read()) {
      if (!message.getErrorMessage().isEmpty()) { // of one request; the stream goes on
        throw new IllegalStateException(message.getErrorMessage());
      }
      answers++;
    }
    return answers;
  }

  private static ChannelCredentials credentials() throws IOException {
    String ca = System.getenv("COALMINE_CA");
    String token = System.getenv("COALMINE_TOKEN");
    ChannelCredentials credentials =
        ca == null
            ? InsecureChannelCredentials.create()
            : TlsChannelCredentials.newBuilder().trustManager(new File(ca)).build();
    return token == null ? credentials : Channels.withToken(credentials, token);
  }
}

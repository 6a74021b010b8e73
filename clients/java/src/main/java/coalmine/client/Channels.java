package coalmine.client;

import com.google.gson.Gson;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Channels as a service in production sets them up. */
public final class Channels {
  /** Servers and routers take messages up to this size, unless they are told otherwise. */
  private static final int MESSAGE_BYTES_MAX = 64 << 20;

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private Channels() {}

  /** Returns a plaintext channel to a target such as {@code dns:///coalmine.prod:9001}. */
  public static ManagedChannelBuilder<?> to(String target) {
    return to(target, InsecureChannelCredentials.create());
  }

  /**
   * Returns a channel that connects as it is used, and again when a connection is lost.
   *
   * <p>Its service config has a deadline where a call has none, retries of UNAVAILABLE, round_robin
   * and health checks.
   */
  public static ManagedChannelBuilder<?> to(String target, ChannelCredentials credentials) {
    return Grpc.newChannelBuilder(target, credentials)
        .defaultServiceConfig(serviceConfig())
        .keepAliveTime(10, TimeUnit.SECONDS)
        .keepAliveTimeout(5, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        .maxInboundMessageSize(MESSAGE_BYTES_MAX);
  }

  /** Returns credentials that show the token with every call, over TLS alone. */
  public static ChannelCredentials withToken(ChannelCredentials tls, String token) {
    if (tls instanceof InsecureChannelCredentials) {
      throw new IllegalArgumentException("a token that travels in the clear is everybody's: use TLS");
    }
    return CompositeChannelCredentials.create(tls, new Bearer(token));
  }

  private static Map<String, ?> serviceConfig() {
    try (var file = Channels.class.getResourceAsStream("service_config.json");
        var reader = new InputStreamReader(file, StandardCharsets.UTF_8)) {
      @SuppressWarnings("unchecked")
      Map<String, ?> config = new Gson().fromJson(reader, Map.class);
      return config;
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static final class Bearer extends CallCredentials {
    private final Metadata metadata = new Metadata();

    Bearer(String token) {
      metadata.put(AUTHORIZATION, "Bearer " + token);
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      applier.apply(metadata);
    }
  }
}

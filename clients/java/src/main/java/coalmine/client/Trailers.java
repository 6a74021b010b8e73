package coalmine.client;

import io.grpc.Metadata;
import io.grpc.Status;

/** What the trailing metadata of a call says: who answered, and whose an error is. */
public final class Trailers {
  private static final Metadata.Key<String> VARIANT = key("x-coalmine-variant");
  private static final Metadata.Key<String> ORIGIN = key("x-coalmine-origin");

  private Trailers() {}

  /** Returns which variant of a route answered; "" where no router did. */
  public static String variant(Metadata trailers) {
    String variant = trailers == null ? null : trailers.get(VARIANT);
    return variant == null ? "" : variant;
  }

  /** Returns who made a call's error: "router", or "server" for all others. */
  public static String origin(Throwable error) {
    Metadata trailers = Status.trailersFromThrowable(error);
    String origin = trailers == null ? null : trailers.get(ORIGIN);
    return origin == null ? "server" : origin;
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}

package coalmine.example;

import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;

/** OpenTelemetry by its variables. A service under OpenTelemetry's agent needs none of this. */
final class Traces {
  private Traces() {}

  /** Returns a telemetry of traces alone, which are exported where an endpoint is set. */
  static OpenTelemetrySdk start() {
    return AutoConfiguredOpenTelemetrySdk.builder()
        .disableShutdownHook()
        .addPropertiesSupplier(Traces::defaults)
        .build()
        .getOpenTelemetrySdk();
  }

  private static Map<String, String> defaults() {
    var defaults = new HashMap<String, String>();
    defaults.put("otel.exporter.otlp.protocol", "grpc");
    defaults.put("otel.metrics.exporter", "none");
    defaults.put("otel.logs.exporter", "none");
    if (System.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == null) {
      defaults.put("otel.traces.exporter", "none");
    }
    return defaults;
  }

  /**
   * Returns a context below the span that asked for this process: by TRACEPARENT, TRACESTATE and
   * BAGGAGE, where they are set. A service that is called has it from its server's instrumentation.
   */
  static Context asked(OpenTelemetrySdk telemetry) {
    var propagator = telemetry.getPropagators().getTextMapPropagator();
    return propagator.extract(Context.root(), System.getenv(), new Variables());
  }

  private static final class Variables implements TextMapGetter<Map<String, String>> {
    @Override
    public Iterable<String> keys(Map<String, String> environment) {
      return environment.keySet();
    }

    @Override
    public String get(Map<String, String> environment, String key) {
      return environment.get(key.toUpperCase(Locale.ROOT));
    }
  }
}

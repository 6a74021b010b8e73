package coalmine.example;

import io.opentelemetry.api.baggage.propagation.W3CBaggagePropagator;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;

/** OpenTelemetry by hand. A service under OpenTelemetry's agent needs none of this. */
final class Traces {
  private Traces() {}

  static OpenTelemetrySdk start() {
    var provider = SdkTracerProvider.builder();
    String endpoint = System.getenv("OTEL_EXPORTER_OTLP_ENDPOINT");
    if (endpoint != null) {
      var exporter = OtlpGrpcSpanExporter.builder().setEndpoint(endpoint).build();
      provider.addSpanProcessor(BatchSpanProcessor.builder(exporter).build());
    }
    var propagators =
        TextMapPropagator.composite(
            W3CTraceContextPropagator.getInstance(), W3CBaggagePropagator.getInstance());
    return OpenTelemetrySdk.builder()
        .setTracerProvider(provider.build())
        .setPropagators(ContextPropagators.create(propagators))
        .build();
  }
}

package main

import (
	"context"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

// startTraces sets OpenTelemetry up by the standard variables, and returns what ends it.
func startTraces(ctx context.Context) (func(context.Context) error, error) {
	var options []trace.TracerProviderOption
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, err
		}
		options = append(options, trace.WithBatcher(exporter))
	}
	provider := trace.NewTracerProvider(options...)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, propagation.Baggage{},
	))
	return provider.Shutdown, nil
}

// asked returns a context below the span that asked for this process: by TRACEPARENT, TRACESTATE and
// BAGGAGE, where they are set. A service that is called has it from its server's instrumentation.
func asked(ctx context.Context) context.Context {
	propagator := otel.GetTextMapPropagator()
	carrier := propagation.MapCarrier{}
	for _, field := range propagator.Fields() {
		carrier[field] = os.Getenv(strings.ToUpper(field))
	}
	return propagator.Extract(ctx, carrier)
}

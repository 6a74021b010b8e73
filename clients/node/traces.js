"use strict";
// OpenTelemetry for @grpc/grpc-js: `node --require ./traces.js …`, so that it comes first.

const { context, propagation } = require("@opentelemetry/api");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { GrpcInstrumentation } = require("@opentelemetry/instrumentation-grpc");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-grpc");
const { detectResources, envDetector } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const exported = process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
const spanProcessors = exported ? [new BatchSpanProcessor(new OTLPTraceExporter())] : [];
const resource = detectResources({ detectors: [envDetector] });
const provider = new NodeTracerProvider({ resource, spanProcessors });
provider.register();
registerInstrumentations({ instrumentations: [new GrpcInstrumentation()] });
process.once("beforeExit", () => provider.shutdown());

// A context below the span that asked for this process: by TRACEPARENT, TRACESTATE and BAGGAGE, where
// they are set. A service that is called has it from its server's instrumentation.
function asked() {
  const variables = { get: (environment, key) => environment[key.toUpperCase()], keys: Object.keys };
  return propagation.extract(context.active(), process.env, variables);
}

module.exports = { asked };

"use strict";
// OpenTelemetry for @grpc/grpc-js: `node --require ./traces.js …`, so that it comes first.

const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { GrpcInstrumentation } = require("@opentelemetry/instrumentation-grpc");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-grpc");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const exported = process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
const spanProcessors = exported ? [new BatchSpanProcessor(new OTLPTraceExporter())] : [];
const provider = new NodeTracerProvider({ spanProcessors });
provider.register();
registerInstrumentations({ instrumentations: [new GrpcInstrumentation()] });
process.once("beforeExit", () => provider.shutdown());

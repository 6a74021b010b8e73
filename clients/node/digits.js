"use strict";
// Asks a server or a router for a digit, once and then by a stream: `node digits.js ADDRESS [MODEL]`.
//
// COALMINE_CA, a PEM file, and COALMINE_TOKEN secure the channel. With OTEL_EXPORTER_OTLP_ENDPOINT
// set, its own spans are exported there; they continue TRACEPARENT.

const { asked } = require("./traces"); // before @grpc/grpc-js
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const { trace } = require("@opentelemetry/api");
const { connect, infer, origin, output, request, stream, tensor } = require("./coalmine");

async function ask(client, model) {
  const message = request(model, tensor("pixels", new Float32Array(64).fill(1), [1, 64]));
  const within = { deadline: Date.now() + 5_000 };
  const { answer, variant } = await infer(client, message, within);
  let streamed = 0;
  for await (const _ of stream(client, [message, message, message], within)) streamed += 1;
  const logits = Array.from(output(answer, "logits").values);
  const { model_name: name, model_version: version } = answer;
  return { model: name, version, variant, logits, streamed };
}

async function main(target = "127.0.0.1:9001", model = "digits") {
  const { COALMINE_CA: ca, COALMINE_TOKEN: token } = process.env;
  const client = connect(target, { ca: ca && fs.readFileSync(ca), token });
  await trace.getTracer("example").startActiveSpan("ask for a digit", {}, asked(), async (span) => {
    try {
      const told = await ask(client, model);
      console.log(JSON.stringify({ ...told, trace: span.spanContext().traceId }));
    } finally {
      span.end();
      client.close();
    }
  });
}

main(...process.argv.slice(2)).catch((error) => {
  const code = grpc.status[error.code];
  console.error(code ? `${code} from the ${origin(error)}: ${error.details}` : error.message);
  process.exitCode = 1;
});

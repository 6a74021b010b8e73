"use strict";
// Asks a server or a router for one digit: `node digits.js ADDRESS [MODEL]`.

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../protos/coalmine/inference/inference.proto");
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

// Return a client. @grpc/grpc-js takes 4 MiB unless told: large answers need more.
function connect(address) {
  const { inference } = grpc.loadPackageDefinition(loader.loadSync(PROTO, { keepCase: true }));
  return new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
  });
}

// Raw contents: row-major, little-endian, as typed arrays have it on nearly all machines.
function request(model, pixels) {
  const bytes = Float32Array.from(pixels);
  return {
    model_name: model,
    inputs: [{ name: "pixels", datatype: "FP32", shape: [1, pixels.length] }],
    raw_input_contents: [Buffer.from(bytes.buffer)],
  };
}

// Return an output's values by name. Slices: a blob may begin anywhere in its message.
function outputs(answer, read) {
  const blobs = answer.raw_output_contents;
  return Object.fromEntries(
    answer.outputs.map(({ name, datatype }, at) => [name, read[datatype](blobs[at])]),
  );
}

const READ = {
  FP32: (blob) => Array.from(new Float32Array(Uint8Array.from(blob).buffer)),
  INT64: (blob) => Array.from(new BigInt64Array(Uint8Array.from(blob).buffer), Number),
};

const [address = "127.0.0.1:9001", model = "digits"] = process.argv.slice(2);
const client = connect(address);
const deadline = Date.now() + 5_000;
const call = client.ModelInfer(request(model, Array(64).fill(1)), { deadline }, (error, answer) => {
  client.close();
  if (error) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
    return;
  }
  const said = { model: answer.model_name, version: answer.model_version };
  // The status, and with it who answered, comes right behind the answer.
  call.on("status", ({ metadata }) => {
    const [variant = null] = metadata.get("x-coalmine-variant");
    console.log(JSON.stringify({ ...said, variant, ...outputs(answer, READ) }));
  });
});

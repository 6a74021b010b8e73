"use strict";
// Calls a coalmine server or router: a channel as a service in production sets it up, tensors from
// typed arrays and back, and what the answer's metadata says.

const path = require("node:path");
const { Readable } = require("node:stream");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
// A deadline where a call has none, retries of UNAVAILABLE, round_robin.
const SERVICE_CONFIG = require("./service_config.json");

// Elsewhere than in a checkout, `coalmine protos --to DIR` writes them.
const PROTOS = path.join(__dirname, "../../protos");
// Servers and routers take messages up to this size, unless they are told otherwise.
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

const OPTIONS = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
  "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
};

// Return a client of a target such as "dns:///coalmine.prod:9001". It connects as it is used, and
// again when a connection is lost. `ca` is a PEM, for TLS; `token` is shown with every call. `longs`
// is String where typed 64-bit integers have to be exact; raw ones, and BigInt64Array, always are.
function connect(target, { ca, token, protos = PROTOS, longs = Number, options = {} } = {}) {
  const file = path.join(protos, "coalmine/inference/inference.proto");
  const definition = loader.loadSync(file, { keepCase: true, defaults: true, longs });
  const { inference } = grpc.loadPackageDefinition(definition);
  const all = { ...OPTIONS, ...options };
  return new inference.GRPCInferenceService(target, credentials(ca, token), all);
}

function credentials(ca, token) {
  const channel = ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure();
  if (!token) return channel;
  if (!ca) throw new Error("a token that travels in the clear is everybody's: use TLS");
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
  return grpc.credentials.combineChannelCredentials(channel, bearer);
}

// What a typed array of each class is on the wire.
const DATATYPES = new Map([
  [Uint8Array, "UINT8"],
  [Uint16Array, "UINT16"],
  [Uint32Array, "UINT32"],
  [BigUint64Array, "UINT64"],
  [Int8Array, "INT8"],
  [Int16Array, "INT16"],
  [Int32Array, "INT32"],
  [BigInt64Array, "INT64"],
  [Float32Array, "FP32"],
  [Float64Array, "FP64"],
]);
// 16-bit floats are given as their bits.
const ARRAYS = new Map([...DATATYPES].map(([array, datatype]) => [datatype, array]));
ARRAYS.set("FP16", Uint16Array).set("BF16", Uint16Array);

// Return a named input, row by row. `values` is a typed array, an array of booleans (BOOL), or one of
// strings and Buffers (BYTES); another datatype of the same bits, such as BF16, is named.
function tensor(name, values, shape, datatype = datatypeOf(values)) {
  return { name, datatype, shape, raw: encode(values) };
}

function datatypeOf(values) {
  if (!Array.isArray(values)) return DATATYPES.get(values.constructor);
  return typeof values[0] === "boolean" ? "BOOL" : "BYTES";
}

// Typed arrays are little-endian, as the wire is, on every machine that Node runs on today.
function encode(values) {
  if (!Array.isArray(values)) {
    return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  }
  if (typeof values[0] === "boolean") return Buffer.from(values.map(Number));
  return Buffer.concat(values.flatMap(encodeElement));
}

function encodeElement(element) {
  const bytes = Buffer.from(element);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(bytes.length);
  return [size, bytes];
}

// Return a request; set its id, model_version or parameters as needed.
function request(model, ...inputs) {
  return {
    model_name: model,
    inputs: inputs.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
    raw_input_contents: inputs.map(({ raw }) => raw),
  };
}

// Return an output's { datatype, shape, values }: a typed array, booleans, or Buffers.
function output(answer, name) {
  const at = answer.outputs.findIndex((each) => each.name === name);
  if (at < 0) throw new Error(`there is no output '${name}'`);
  const { datatype, shape } = answer.outputs[at];
  return { datatype, shape, values: decode(datatype, answer.raw_output_contents[at]) };
}

function decode(datatype, raw) {
  if (datatype === "BOOL") return Array.from(raw, Boolean);
  if (datatype === "BYTES") return decodeElements(raw);
  // A copy: a blob may begin anywhere in its message, an array only where it is aligned.
  return new (ARRAYS.get(datatype))(Uint8Array.from(raw).buffer);
}

function decodeElements(raw) {
  const elements = [];
  for (let at = 0; at < raw.length; ) {
    const end = at + 4 + raw.readUInt32LE(at);
    elements.push(raw.subarray(at + 4, end));
    at = end;
  }
  return elements;
}

// Resolve to { answer, variant }; reject with gRPC's error, of which `origin` says whose it is.
function infer(client, message, options = {}, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    let answer;
    const call = client.ModelInfer(message, metadata, options, (error, response) => {
      if (error) reject(error);
      answer = response;
    });
    // The status, and with it who answered, comes right behind the answer.
    call.on("status", (status) => resolve({ answer, variant: variant(status.metadata) }));
  });
}

// Yield the answer to each of `messages`, which may be an async iterable, in order. Leaving the loop early ends the stream.
async function* stream(client, messages, options = {}, metadata = new grpc.Metadata()) {
  const call = client.ModelStreamInfer(metadata, options);
  const source = Readable.from(messages).on("error", (error) => call.destroy(error));
  source.pipe(call); // no faster than the server reads
  try {
    for await (const { error_message: error, infer_response: answer } of call) {
      if (error) throw new Error(error); // of one request; the stream could go on
      yield answer;
    }
  } finally {
    call.cancel();
  }
}

// Return which variant of a route answered; "" where no router did.
function variant(trailer) {
  return first(trailer, "x-coalmine-variant") ?? "";
}

// Return who made a call's error: "router", or "server" for all others.
function origin(error) {
  return first(error.metadata, "x-coalmine-origin") ?? "server";
}

function first(metadata, key) {
  return metadata?.get(key)[0];
}

module.exports = { connect, infer, origin, output, request, stream, tensor, variant };

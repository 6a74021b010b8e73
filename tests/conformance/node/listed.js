"use strict";
// The runner of the list in Node. Reads calls, a line of JSON each; answers with a line each.
// `node listed.js ADDRESS`

const readline = require("node:readline");
const grpc = require("@grpc/grpc-js");
const client = require("../../../clients/node/coalmine");

const GZIP = { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip };

// ---------------------------------------------------------------- requests

const FIELDS = {
  BOOL: "bool_contents",
  UINT8: "uint_contents",
  UINT16: "uint_contents",
  UINT32: "uint_contents",
  UINT64: "uint64_contents",
  INT8: "int_contents",
  INT16: "int_contents",
  INT32: "int_contents",
  INT64: "int64_contents",
  FP32: "fp32_contents",
  FP64: "fp64_contents",
  BYTES: "bytes_contents",
};
const ARRAYS = {
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: Uint16Array,
  BF16: Uint16Array,
  FP32: Float32Array,
  FP64: Float64Array,
};

function valuesOf(datatype, values) {
  if (datatype === "BYTES") return values.map((each) => Buffer.from(each, "hex"));
  if (datatype === "BOOL") return values.map((each) => each === "true");
  return ARRAYS[datatype].from(values, datatype.endsWith("INT64") ? BigInt : Number);
}

function requestOf(call) {
  const tensors = call.inputs.map(({ name, datatype, shape, values }) =>
    client.tensor(name, valuesOf(datatype, values), shape, datatype),
  );
  const message = client.request(call.model, ...tensors);
  if (call.version) message.model_version = call.version;
  if (call.id) message.id = call.id;
  message.outputs = (call.outputs ?? []).map((name) => ({ name }));
  if (call.inputs.some(({ typed }) => typed)) typed(message, call.inputs);
  return message;
}

function typed(message, inputs) {
  message.raw_input_contents = [];
  inputs.forEach(({ datatype, values }, at) => {
    const given = datatype.endsWith("INT64") ? values : Array.from(valuesOf(datatype, values));
    message.inputs[at].contents = { [FIELDS[datatype]]: given };
  });
}

// ---------------------------------------------------------------- answers

function answerOf(answer) {
  const { id, model_name: model, model_version: version } = answer;
  const outputs = answer.outputs.map((output) => outputOf(answer, output));
  return { id, model, version, outputs };
}

function outputOf(answer, { name, datatype, shape, contents }) {
  const isRaw = answer.raw_output_contents.length > 0;
  const values = isRaw ? client.output(answer, name).values : contents[FIELDS[datatype]];
  const spelt = (each) => (Buffer.isBuffer(each) ? each.toString("hex") : String(each));
  return { name, datatype, shape: shape.map(Number), values: Array.from(values, spelt) };
}

function ended({ code, details, metadata }) {
  const [status, message] = [grpc.status[code], details];
  return { status, message, origin: client.origin({ metadata }), variant: client.variant(metadata) };
}

// ---------------------------------------------------------------- calls

function optionsOf({ deadline_ms: ms }) {
  return ms === undefined ? {} : { deadline: Date.now() + ms };
}

function metadataOf({ metadata = {} }) {
  const given = new grpc.Metadata();
  for (const [key, value] of Object.entries(metadata)) given.set(key, value);
  return given;
}

// Resolve to how a call ended, with what `told` makes of its answer.
function unary(begin, told) {
  return new Promise((resolve) => {
    let answered = {};
    const call = begin((error, answer) => {
      if (!error) answered = told(answer);
    });
    call.on("status", (status) => resolve({ ...answered, ...ended(status) }));
  });
}

function infer({ plain, zipped }, call) {
  const stub = call.gzip ? zipped : plain;
  const begin = (done) => {
    const begun = stub.ModelInfer(requestOf(call), metadataOf(call), optionsOf(call), done);
    if (call.cancel_ms !== undefined) setTimeout(() => begun.cancel(), call.cancel_ms);
    return begun;
  };
  return unary(begin, answerOf);
}

function stream({ plain }, { requests }) {
  return new Promise((resolve) => {
    const answers = [];
    const call = plain.ModelStreamInfer({ deadline: Date.now() + 10_000 });
    call.on("data", ({ error_message: error, infer_response: answer }) =>
      answers.push(error ? { error } : { id: answer.id }),
    );
    call.on("error", () => {}); // its status says it
    call.on("status", (status) => resolve({ answers, ...ended(status) }));
    for (const each of requests) call.write(requestOf(each));
    call.end();
  });
}

function tensorsOf(tensors) {
  return tensors.map(({ name, datatype, shape }) => [name, datatype, shape.map(Number)]);
}

async function load(stubs, call) {
  const over = Date.now() + call.seconds * 1000;
  const statuses = {};
  const count = async () => {
    const { status } = await infer(stubs, call);
    statuses[status] = (statuses[status] ?? 0) + 1;
  };
  await count();
  console.log(JSON.stringify({ loading: true }));
  const keepCalling = async () => {
    while (Date.now() < over) await count();
  };
  await Promise.all(Array.from({ length: call.callers }, keepCalling));
  return { statuses };
}

const CALLS = {
  infer,
  load,
  stream,
  ready: ({ plain }, { model }) =>
    unary((done) => plain.ModelReady({ name: model }, done), ({ ready }) => ({ ready })),
  server_ready: ({ plain }) => unary((done) => plain.ServerReady({}, done), ({ ready }) => ({ ready })),
  server_metadata: ({ plain }) =>
    unary((done) => plain.ServerMetadata({}, done), ({ name }) => ({ server: name })),
  metadata: ({ plain }, { model }) =>
    unary((done) => plain.ModelMetadata({ name: model }, done), ({ name, inputs, outputs }) => ({
      model: name,
      inputs: tensorsOf(inputs),
      outputs: tensorsOf(outputs),
    })),
};

async function main(address) {
  const stubs = {
    plain: client.connect(address, { longs: String }),
    zipped: client.connect(address, { longs: String, options: GZIP }),
  };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const call = JSON.parse(line);
    console.log(JSON.stringify(await CALLS[call.call](stubs, call)));
  }
  for (const each of Object.values(stubs)) each.close();
}

main(...process.argv.slice(2));

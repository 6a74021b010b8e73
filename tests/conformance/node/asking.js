"use strict";
// How the Node callers call: @grpc/grpc-js, its stubs loaded from the protocol's own file.

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../../protos/coalmine/inference/inference.proto");
const MIB = 1024 * 1024;

const { inference } = grpc.loadPackageDefinition(loader.loadSync(PROTO, { keepCase: true }));

function service(address, options = {}) {
  return new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), options);
}

function request(data = Buffer.alloc(0)) {
  return {
    model_name: "echo",
    id: "f-1",
    inputs: [{ name: "data", datatype: "UINT8", shape: [data.length] }],
    raw_input_contents: [data],
  };
}

// Text as HTTP may join it, bytes in hex; of the keys that matter.
function joined(metadata) {
  const keys = Object.keys(metadata.getMap());
  const known = keys.filter((key) => key.startsWith("x-") || key.startsWith("grpc-status"));
  const text = (value) => (Buffer.isBuffer(value) ? value.toString("hex") : value);
  return Object.fromEntries(
    known.map((key) => [key, metadata.get(key).map(text).join(", ")]),
  );
}

// Resolve to how a call ended, whether well or not.
function ended(begin) {
  return new Promise((resolve) => {
    const told = { status: null };
    const call = begin((_error, response) => (told.response = response));
    call.on("metadata", (initial) => (told.initial = joined(initial)));
    call.on("status", ({ code, details, metadata }) => {
      if (code !== grpc.status.OK) Object.assign(told, { status: grpc.status[code], message: details });
      resolve({ ...told, trailing: joined(metadata) });
    });
  });
}

function main(scenario) {
  scenario(...process.argv.slice(2)).then((told) => console.log(JSON.stringify(told)));
}

module.exports = { MIB, ended, joined, main, request, service };

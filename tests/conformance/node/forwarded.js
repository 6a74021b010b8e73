"use strict";
// Calls to the echo through a router. `node forwarded.js ROUTER ECHO` prints what it saw, as JSON.

const grpc = require("@grpc/grpc-js");
const { MIB, ended, main, request, service } = require("./asking");

const WIDE = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const GZIP = { ...WIDE, "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip };
const EVERY_BYTE = Buffer.from(Array.from({ length: 256 }, (_, each) => each));

function sent(more = {}) {
  const metadata = new grpc.Metadata();
  metadata.add("x-sent-one", "1");
  metadata.add("x-sent-one", "two, three");
  metadata.add("x-sent-empty", "");
  metadata.add("x-sent-raw-bin", EVERY_BYTE);
  metadata.add("x-sent-raw-bin", Buffer.from([0]));
  for (const [key, value] of Object.entries(more)) metadata.set(key, value);
  return metadata;
}

function doing(what) {
  const metadata = new grpc.Metadata();
  metadata.set("x-do", what);
  return metadata;
}

function within(seconds) {
  return { deadline: Date.now() + seconds * 1000 };
}

async function infer(stub, message, metadata = new grpc.Metadata(), options = {}) {
  return ended((done) => stub.ModelInfer(message, metadata, options, done));
}

// Return how many requests came to the echo, and how many callers went before the answer.
function counter(echo) {
  const same = (bytes) => bytes;
  return async () => {
    const call = (done) =>
      echo.makeUnaryRequest("/echo.Echo/Seen", same, same, Buffer.alloc(0), done);
    return JSON.parse((await ended(call)).response.toString());
  };
}

async function reached(what) {
  for (const giveUp = Date.now() + 10_000; Date.now() < giveUp; ) {
    if (await what()) return true;
    await new Promise((done) => setTimeout(done, 10));
  }
  return false;
}

async function late(stub, seen) {
  const before = await seen();
  const told = await infer(stub, request(), doing("hang"), within(0.3));
  const gone = async () => (await seen()).cancelled === before.cancelled + 1;
  return { ...refusal(told), echo_cancelled: await reached(gone) };
}

async function cancelled(stub, seen) {
  const before = await seen();
  let call;
  const told = ended((done) => (call = stub.ModelInfer(request(), doing("hang"), done)));
  const came = await reached(async () => (await seen()).came === before.came + 1);
  call.cancel();
  const gone = await reached(async () => (await seen()).cancelled === before.cancelled + 1);
  return { status: (await told).status, echo_came: came, echo_cancelled: gone };
}

async function thereAndBack(stub, size) {
  const data = Buffer.alloc(size, EVERY_BYTE);
  const told = await infer(stub, request(data), new grpc.Metadata(), within(30));
  if (!told.response) return refusal(told);
  const [came] = told.response.raw_output_contents;
  return { bytes: came.length, right: came.equals(data) };
}

function refusal({ status, message, trailing }) {
  return { status, message, trailing };
}

async function carried(stub, metadata, options) {
  const { response, initial, trailing, ...failed } = await infer(stub, request(), metadata, options);
  return response ? { id: response.id, initial, trailing } : failed;
}

main(async (router, echo) => {
  const stub = service(router, WIDE);
  const gzip = service(router, GZIP);
  const direct = service(echo);
  const seen = counter(direct);
  const told = {
    carried: await carried(stub, sent(), within(20)),
    no_deadline: await carried(stub, new grpc.Metadata(), {}),
    refused: refusal(await infer(stub, request(), sent({ "x-do": "refuse" }))),
    late: await late(stub, seen),
    cancelled: await cancelled(stub, seen),
    large: await thereAndBack(stub, 60 * MIB),
    compressed: await thereAndBack(gzip, MIB),
    too_large: refusal(await infer(stub, request(Buffer.alloc(65 * MIB)))),
    still: await thereAndBack(stub, 1),
  };
  for (const each of [stub, gzip, direct]) each.close();
  return told;
});

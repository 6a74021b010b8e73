"use strict";
// Streams through a router. `node streamed.js ROUTER` prints what it saw, as JSON.

const grpc = require("@grpc/grpc-js");
const { joined, main, service } = require("./asking");

function request(model, number, value = 1) {
  const contents = { fp32_contents: Array(64).fill(value) };
  const inputs = [{ name: "pixels", datatype: "FP32", shape: [1, 64], contents }];
  return { model_name: model, id: String(number), inputs };
}

function answer({ error_message: error, infer_response: response }) {
  return error || [response.id, response.model_version];
}

// Resolve to the ids and versions of the answers, the stream's variant, and its status.
function ended(call, onAnswer = () => {}) {
  const answers = [];
  return new Promise((resolve) => {
    call.on("data", (message) => {
      answers.push(answer(message));
      onAnswer(answers);
    });
    call.on("error", () => {}); // its status comes too
    call.on("status", ({ code, metadata }) => {
      const variant = joined(metadata)["x-coalmine-variant"];
      const variants = variant === undefined ? [] : [variant];
      const told = { status: grpc.status[code], answers };
      resolve(code === grpc.status.OK ? { ...told, variants } : told);
    });
  });
}

async function stream(stub, model, count, { value = 1, seconds = 30 } = {}) {
  const call = stub.ModelStreamInfer({ deadline: Date.now() + seconds * 1000 });
  const told = ended(call);
  for (let each = 0; each < count; each += 1) call.write(request(model, each, value));
  call.end();
  return told;
}

// Return the ids of answers, each of which was waited for before the next request.
async function inTurn(stub) {
  const call = stub.ModelStreamInfer({ deadline: Date.now() + 30_000 });
  const told = ended(call, ({ length }) => (length < 3 ? call.write(request("both", length)) : call.end()));
  call.write(request("both", 0));
  return (await told).answers.map(([id]) => id);
}

async function cancelled(stub) {
  const call = stub.ModelStreamInfer();
  const told = ended(call, () => call.cancel());
  call.write(request("slow", 0));
  call.write(request("slow", 1, 4e5));
  const { status, answers: [first, ...answers] } = await told;
  return { first, status, answers };
}

main(async (router) => {
  const stub = service(router);
  const streams = [];
  for (let each = 0; each < 4; each += 1) streams.push(await stream(stub, "both", 8));
  const told = {
    streams,
    in_turn: await inTurn(stub),
    unknown: await stream(stub, "nobody", 1),
    cancelled: await cancelled(stub),
    late: await stream(stub, "slow", 1, { value: 4e5, seconds: 0.1 }),
    still: await stream(stub, "both", 2),
  };
  stub.close();
  return told;
});

"""Streams through a router, by tritonclient's stubs. `ROUTER`."""

import sys
from collections.abc import Iterator
from itertools import repeat
from queue import Queue
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from tests.conformance.callers.asking import Output, say

VARIANT = "x-coalmine-variant"


def scenario(stub: Any) -> Output:
    return {
        "streams": [stream(stub, "both", 8) for _ in range(4)],
        "in_turn": in_turn(stub),
        "unknown": stream(stub, "nobody", 1),
        "cancelled": cancelled(stub),
        "late": stream(stub, "slow", 1, value=4e5, timeout=0.1),
        "still": stream(stub, "both", 2),
    }


def request(model: str, number: int, value: float = 1.0) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model, id=str(number))
    given = made.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    given.contents.fp32_contents.extend(repeat(value, 64))
    return made


def stream(stub: Any, model: str, count: int, *, value: float = 1.0, **named: Any) -> Output:
    call = stub.ModelStreamInfer((request(model, each, value) for each in range(count)), **named)
    return ended(call)


def ended(call: Any) -> Output:
    """Return the ids and versions of the answers, the stream's variant, and its status."""
    answers: list[str | list[str]] = []
    try:
        answers.extend(each.error_message or answer(each) for each in call)
    except grpc.RpcError as error:
        return {"status": error.code().name, "answers": answers}
    variants = [value for key, value in call.trailing_metadata() if key == VARIANT]
    return {"status": "OK", "answers": answers, "variants": variants}


def answer(each: pb.ModelStreamInferResponse) -> list[str]:
    return [each.infer_response.id, each.infer_response.model_version]


def in_turn(stub: Any) -> list[str]:
    """Return the ids of answers, each of which was waited for before the next request."""
    came: Queue[str] = Queue()

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield request("both", 0)
        for _ in range(2):
            yield request("both", int(came.get(timeout=30)) + 1)

    ids = []
    for each in stub.ModelStreamInfer(requests(), timeout=30):
        ids.append(each.infer_response.id)
        came.put(ids[-1])
    return ids


def cancelled(stub: Any) -> Output:
    def requests() -> Iterator[pb.ModelInferRequest]:
        yield request("slow", 0)
        yield request("slow", 1, 4e5)

    call = stub.ModelStreamInfer(requests())
    first = answer(next(call))
    call.cancel()
    return {"first": first, **ended(call)}


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        say(scenario(pb_grpc.GRPCInferenceServiceStub(channel)))

"""Calls to the echo through a router, by tritonclient's stubs. `ROUTER ECHO`."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from tests.conformance.callers.asking import Output, say

MIB = 1024 * 1024
WIDE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SENT = (
    ("x-sent-one", "1"),
    ("x-sent-one", "two, three"),
    ("x-sent-empty", ""),
    ("x-sent-raw-bin", bytes(range(256))),
    ("x-sent-raw-bin", b"\x00"),
)


def scenario(stub: Any, echo: grpc.Channel) -> Output:
    seen = counter(echo)
    return {
        "carried": output(*stub.ModelInfer.with_call(request(), metadata=SENT, timeout=20)),
        "no_deadline": output(*stub.ModelInfer.with_call(request())),
        "refused": failure(stub, metadata=(*SENT, ("x-do", "refuse"))),
        "late": late(stub, seen),
        "cancelled": cancelled(stub, seen),
        "large": there_and_back(stub, 60 * MIB),
        "compressed": there_and_back(stub, MIB, compression=grpc.Compression.Gzip),
        "too_large": failure(stub, request(bytes(65 * MIB))),
        "still": there_and_back(stub, 1),
    }


def request(data: bytes = b"") -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="echo", id="f-1", raw_input_contents=[data])
    made.inputs.add(name="data", datatype="UINT8", shape=[len(data)])
    return made


def output(answer: pb.ModelInferResponse, call: Any) -> Output:
    return {
        "id": answer.id,
        "initial": joined(call.initial_metadata()),
        "trailing": joined(call.trailing_metadata()),
    }


def joined(metadata: Any) -> dict[str, str]:
    """Return text as HTTP may join it, bytes in hex."""
    found: dict[str, list[str]] = {}
    for key, value in metadata or ():
        found.setdefault(key, []).append(value.hex() if isinstance(value, bytes) else value)
    return {
        key: ", ".join(values)
        for key, values in found.items()
        if key.startswith(("x-", "grpc-status"))
    }


def failure(stub: Any, given: Any = None, **named: Any) -> Output:
    try:
        answer = stub.ModelInfer(given or request(), **named)
    except grpc.RpcError as error:
        return {
            "status": error.code().name,
            "message": error.details(),
            "trailing": joined(error.trailing_metadata()),
        }
    return {"status": None, "answer": str(answer)[:200]}


def counter(echo: grpc.Channel) -> Callable[[], Output]:
    call: Any = echo.unary_unary("/echo.Echo/Seen")
    return lambda: json.loads(call(b"", timeout=10))


def late(stub: Any, seen: Callable[[], Output]) -> Output:
    before = seen()["cancelled"]
    ended = failure(stub, metadata=(("x-do", "hang"),), timeout=0.3)
    return {**ended, "echo_cancelled": reached(lambda: seen()["cancelled"] == before + 1)}


def cancelled(stub: Any, seen: Callable[[], Output]) -> Output:
    before = seen()
    call = stub.ModelInfer.future(request(), metadata=(("x-do", "hang"),))
    came = reached(lambda: seen()["came"] == before["came"] + 1)
    call.cancel()
    gone = reached(lambda: seen()["cancelled"] == before["cancelled"] + 1)
    return {"status": call.code().name, "echo_came": came, "echo_cancelled": gone}


def reached(what: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 10
    while not what():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def there_and_back(stub: Any, size: int, **named: Any) -> Output:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    (came,) = stub.ModelInfer(request(data), timeout=30, **named).raw_output_contents
    return {"bytes": len(came), "right": came == data}


if __name__ == "__main__":
    with (
        grpc.insecure_channel(sys.argv[1], WIDE) as to_router,
        grpc.insecure_channel(sys.argv[2]) as to_echo,
    ):
        say(scenario(pb_grpc.GRPCInferenceServiceStub(to_router), to_echo))

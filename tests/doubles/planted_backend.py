"""Both versions of the model of tests/doubles/planted.py, in one process.

As a program: tells its address, and answers until its input closes. It keeps nothing of
a request: it has a hundred thousand to answer.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as pb
from tests.doubles.planted import answer


async def _infer(body: bytes, _context: object) -> bytes:
    return answer(pb.ModelInferRequest.FromString(body))


async def _ready(_body: bytes, _context: object) -> bytes:
    return pb.ModelReadyResponse(ready=True).SerializeToString()


async def _serve() -> None:
    methods: dict[str, Any] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(_infer),
        "ModelReady": grpc.unary_unary_rpc_method_handler(_ready),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())

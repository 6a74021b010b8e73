"""A shadow: says that it is ready, and answers with the same bytes, or never.

`python -m benchmarks.shadow_backend ADDRESS [HEX]` tells its address; without bytes, no ModelInfer
is ever answered.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from benchmarks.backend import LIMITS
from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as pb


async def serve(address: str, response: bytes) -> None:
    async def infer(_request: bytes, _context: object) -> bytes:
        if not response:
            await asyncio.Event().wait()
        return response

    async def ready(_request: bytes, _context: object) -> bytes:
        return pb.ModelReadyResponse(ready=True).SerializeToString()

    server = grpc.aio.server(options=LIMITS)
    methods: dict[str, Any] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
        "ModelReady": grpc.unary_unary_rpc_method_handler(ready),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port(address)
    await server.start()
    print(f"{address.rpartition(':')[0]}:{port}", flush=True)
    await server.wait_for_termination()


def main() -> None:
    address, *response = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(address, bytes.fromhex("".join(response))))


if __name__ == "__main__":
    main()

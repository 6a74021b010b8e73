"""What stands behind every router here: answers any ModelInfer with the same bytes."""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from coalmine.limits import MESSAGE_BYTES_MAX

LIMITS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
]


async def serve(response: bytes) -> None:
    async def answer(_request: bytes, _context: object) -> bytes:
        return response

    server = grpc.aio.server(options=LIMITS)
    methods: dict[str, Any] = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    response = bytes.fromhex(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(response))


if __name__ == "__main__":
    main()

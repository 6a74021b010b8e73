"""The bare grpc.aio pass-through: bytes in, bytes out, nothing else. The floor to measure by."""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from benchmarks.backend import LIMITS
from benchmarks.load import METHOD


async def serve(backend: str) -> None:
    channel = grpc.aio.insecure_channel(backend, options=LIMITS)
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    call = channel.unary_unary(f"/{METHOD}")

    async def pass_on(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        answer: bytes = await call(request, timeout=context.time_remaining())
        return answer

    server = grpc.aio.server(options=LIMITS)
    service, _, method = METHOD.partition("/")
    methods: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(pass_on)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()

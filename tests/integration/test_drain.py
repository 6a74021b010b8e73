"""A server that stops while it is called: held answers arrive, and nobody is cancelled."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from coalmine.process.answer_gate import AnswerGate
from coalmine.process.lifecycle import drain, listen
from tests.doubles.waiting import eventually

METHOD = "/test.Service/Method"
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class Answering(grpc.GenericRpcHandler):
    """Answers each call with its own bytes, as soon as the hold lets it."""

    def __init__(self) -> None:
        self.hold = AnswerGate()
        self.events: list[str] = []

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        if self.hold.is_on:
            self.events.append("held")
            await self.hold.wait(context.time_remaining())
        return request


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[tuple[grpc.aio.Server, Answering, str]]:
    service = Answering()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    server.add_generic_rpc_handlers((service,))
    bound = await listen(server, address, shared=True)
    await server.start()
    try:
        yield server, service, bound
    finally:
        await server.stop(0)


async def call(channel: grpc.aio.Channel, ends: Counter[str]) -> str:
    try:
        method: Any = channel.unary_unary(METHOD)
        await method(b"x", timeout=20)
        code = "OK"
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    ends[code] += 1
    return code


async def test_callers_move_to_whoever_listens_without_a_failed_call() -> None:
    ends: Counter[str] = Counter()
    gone = asyncio.Event()

    async def caller(channel: grpc.aio.Channel) -> None:
        later = 0
        while later < 5:
            await call(channel, ends)
            later += gone.is_set()

    async with serving("127.0.0.1:0") as (first, service, address):
        channels = [grpc.aio.insecure_channel(address, options=OPTIONS) for _ in range(4)]
        for channel in channels:
            await call(channel, ends)  # all at the first: no other is there
        async with serving(address), asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for n in range(16):
                tasks.create_task(caller(channels[n % 4]))
            await drain(first, None, grace_s=10, gate=service.hold)
            gone.set()
        for channel in channels:
            await channel.close()
    assert set(ends) == {"OK"}, ends
    assert service.events.count("held") >= 16, "each caller, at the end"


async def test_with_nobody_else_new_calls_are_unavailable_and_none_is_cancelled() -> None:
    ends: Counter[str] = Counter()

    async def caller(channel: grpc.aio.Channel) -> None:
        while await call(channel, ends) == "OK":
            pass

    async with (
        serving("127.0.0.1:0") as (server, service, address),
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
        asyncio.timeout(30),
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(16):
            tasks.create_task(caller(channel))
        await eventually(lambda: ends["OK"] >= 50, 30)
        await drain(server, None, grace_s=10, gate=service.hold)
    assert set(ends) == {"OK", "UNAVAILABLE"}
    assert ends["UNAVAILABLE"] == 16


async def test_streams_are_told_when_no_call_comes_any_more() -> None:
    order: list[str] = []

    class Held(AnswerGate):
        def begin(self) -> None:
            order.append("answers are held")
            super().begin()

        def end(self) -> None:
            order.append("answers go")
            super().end()

    async with serving("127.0.0.1:0") as (server, _, _):
        await drain(server, None, grace_s=1, gate=Held(), refuse=lambda: order.append("refused"))
    assert order == ["answers are held", "refused", "answers go"]

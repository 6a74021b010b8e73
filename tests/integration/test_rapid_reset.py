"""A port under a flood of streams: what reaches Python, and whom the bounds don't harm."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.limits import STREAMS_MAX
from coalmine_router.channels import CONTROL_SERVER_OPTIONS
from coalmine_router.proxy.listener import DATA_SERVER_OPTIONS
from coalmine_server.config import ServerConfig
from coalmine_server.grpc_front.listener import options_of
from tests.doubles.raw_http2 import reset_streams
from tests.doubles.waiting import eventually

METHOD = "/test.Service/Method"
# As many calls in flight as a server and a proxy take by default may wait at a port.
WAITING_MAX = 4_096
PORTS = {
    "server": options_of(ServerConfig(Path(), "", "", 1.0)),
    "data": DATA_SERVER_OPTIONS,
    "control": CONTROL_SERVER_OPTIONS,
}


class Echo(grpc.GenericRpcHandler):
    """Echoes any method, while `released`; counts what is asked of it and who is in it."""

    def __init__(self) -> None:
        self.asked = self.inside = 0
        self.released = asyncio.Event()

    def service(self, _details: Any) -> Any:
        self.asked += 1
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, _context: Any) -> bytes:
        self.inside += 1
        await self.released.wait()
        return request


@contextlib.asynccontextmanager
async def echoing(port: str) -> AsyncIterator[tuple[Echo, str]]:
    echo = Echo()
    server = grpc.aio.server(options=list(PORTS[port]))
    server.add_generic_rpc_handlers((echo,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield echo, address
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def calling(address: str) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel.unary_unary(METHOD)


@pytest.mark.parametrize("port", PORTS)
async def test_of_streams_that_are_reset_at_once_no_more_wait_than_may_be_in_flight(
    port: str,
) -> None:
    async with echoing(port) as (echo, address):
        echo.released.set()
        reset_streams(address, METHOD, 20_000)  # the loop stands still: all of them wait, or go
        async with calling(address) as call:
            assert await call(b"body", timeout=20) == b"body"
        assert echo.asked <= WAITING_MAX + 2


@pytest.mark.parametrize("port", PORTS)
async def test_calls_over_the_bound_of_a_connection_wait_for_those_before_them(port: str) -> None:
    async with (
        echoing(port) as (echo, address),
        calling(address) as call,
        asyncio.TaskGroup() as tasks,
    ):
        calls = [tasks.create_task(_answer_of(call)) for _ in range(3 * STREAMS_MAX)]
        await eventually(lambda: echo.inside == STREAMS_MAX)
        echo.released.set()
        assert {await each for each in calls} == {b"body"}


async def _answer_of(call: Any) -> Any:
    return await call(b"body", timeout=60)


@pytest.mark.parametrize("port", PORTS)
async def test_as_many_calls_as_may_be_in_flight_can_come_at_once(port: str) -> None:
    async with echoing(port) as (echo, address), contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(calling(address)) for _ in range(5)]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        made = [tasks.create_task(_answer_of(calls[each % 5])) for each in range(WAITING_MAX)]
        await eventually(lambda: echo.inside == WAITING_MAX, timeout_s=30)
        echo.released.set()
        assert {await each for each in made} == {b"body"}

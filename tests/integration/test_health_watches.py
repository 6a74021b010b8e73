"""How many may watch a server's health, and what becomes of those over that."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from structlog.testing import capture_logs

from coalmine.listener.health import Health
from coalmine.listener.stream_limit import StreamRefused
from tests.doubles.waiting import eventually

REQUEST = pb.HealthCheckRequest()


@contextlib.asynccontextmanager
async def watched(health: Health) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield health_pb2_grpc.HealthStub(channel)
        finally:
            await server.stop(None)


async def test_watches_over_the_bound_are_refused_counted_and_logged_once() -> None:
    health = Health(watches_max=4)
    async with watched(health) as stub:
        with capture_logs() as logs:
            open_ = [stub.Watch(REQUEST) for _ in range(4)]
            for each in open_:
                await each.read()
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError, match="4 are open, the most") as refused:
                    await stub.Watch(REQUEST).read()
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [each["event"] for each in logs] == ["health_watches_turned_away"]
        # Who only asks is answered.
        assert (await stub.Check(REQUEST)).status == pb.HealthCheckResponse.SERVING
        [family] = StreamRefused("of_a_test", health.limit).collect()
        assert family.name == "of_a_test_health_watches_turned_away"
        assert [each.value for each in family.samples] == [3]


async def test_there_is_room_for_a_watch_once_another_has_gone() -> None:
    health = Health(watches_max=1)
    async with watched(health) as stub:
        first = stub.Watch(REQUEST)
        await first.read()
        first.cancel()
        seen: list[Any] = []

        async def is_let_in() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                seen.append(await stub.Watch(REQUEST).read())
            return bool(seen)

        for _ in range(100):
            if await is_let_in():
                break
        assert seen
        await eventually(lambda: health.limit.turned_away <= 100)

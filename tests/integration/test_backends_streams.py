"""A backend that bounds the streams of a connection: the router opens more, and waits for none."""

import asyncio

import grpc
import pytest

from coalmine_router.table import Backend
from tests.doubles.backends_rig import alive, table
from tests.doubles.oip_backend import INFER, Gate, OipBackend
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import REQUEST, ended, split_route, table_of

STREAMS = 10
CALLS = 20 * STREAMS
OPTIONS = [
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.http.overload_protection", 0),
]
OK = grpc.StatusCode.OK


@pytest.mark.parametrize("health", [True, False])
async def test_a_proxys_calls_dont_wait_for_a_backends_bound_on_streams(*, health: bool) -> None:
    gate = Gate()
    async with (
        OipBackend(gate, options=OPTIONS, health=health) as backend,
        ProxyRig(table_of(backend.address, backend.address, split_route(0))) as proxy,
    ):
        calls = [proxy.infer(REQUEST) for _ in range(CALLS)]
        await backend.wait_seen(CALLS)
        gate.open()
        assert [(await ended(call)).code for call in calls] == [OK] * CALLS


async def test_copies_dont_wait_for_a_backends_bound_on_streams() -> None:
    gate = Gate()
    async with (
        OipBackend(gate, options=OPTIONS) as backend,
        alive(table(Backend("blue", (backend.address,)))) as rig,
    ):
        address = rig.stable.pick()
        assert address is not None
        async with asyncio.TaskGroup() as tasks:
            made = [
                tasks.create_task(address.call(f"/{INFER}", REQUEST, timeout_s=10.0))
                for _ in range(CALLS)
            ]
            await backend.wait_seen(CALLS)
            assert address.outstanding == CALLS
            gate.open()
        assert [each.result() for each in made] == [b""] * CALLS
        assert address.outstanding == 0


async def test_a_backend_with_several_connections_that_goes_is_found_again() -> None:
    gate = Gate()
    async with (
        OipBackend(gate, options=OPTIONS) as backend,
        ProxyRig(table_of(backend.address, backend.address, split_route(0))) as proxy,
    ):
        calls = [proxy.infer(REQUEST) for _ in range(CALLS)]
        await backend.wait_seen(CALLS)
        await backend.stop()
        codes = {(await ended(call)).code for call in calls}
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        gate.open()
        await backend.start()
        await proxy.backends.wait_until_warm(10)
        async with asyncio.timeout(10):
            while (await ended(proxy.infer(REQUEST))).code is not OK:
                await proxy.backends.wait_for_reach_change()

"""What may be in flight: who is turned away, with which words, and that there is room again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from coalmine_router.table import Limits, Match, Route, RouteTable, Shadow, Variant
from tests.doubles.oip_backend import Gate, OipBackend, failing, hanging, request_body
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import (
    PIN_CANARY,
    REQUEST,
    Ended,
    assert_all_let_out,
    closed_port,
    ended,
    split_route,
    table_of,
)
from tests.doubles.waiting import eventually

OK = grpc.StatusCode.OK
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
SIZE = len(REQUEST)


NONE = Limits()


def limited(address: str, *, route: Limits = NONE, total: Limits = NONE) -> RouteTable:
    return table_of(address, address, split_route(0, limits=route), limits=total)


@asynccontextmanager
async def full(count: int, *, route: Limits, total: Limits) -> AsyncIterator[tuple[ProxyRig, Gate]]:
    """Yield a proxy with so many requests in flight, and what lets them go on."""
    gate = Gate()
    async with (
        OipBackend(gate) as backend,
        ProxyRig(limited(backend.address, route=route, total=total)) as proxy,
    ):
        calls = [proxy.infer(REQUEST) for _ in range(count)]
        await backend.wait_seen(count)
        yield proxy, gate
        gate.open()
        assert [(await ended(call)).code for call in calls] == [OK] * count
        await assert_all_let_out(proxy)


LIMITED = [
    (Limits(in_flight_max=3), NONE, "in_flight", "route 'digits': 3 requests are in flight, "),
    (NONE, Limits(in_flight_max=3), "in_flight", "this proxy: 3 requests are in flight, the mo"),
    (
        Limits(bytes_max=3 * SIZE),
        NONE,
        "bytes",
        f"route 'digits': requests and unread answers in flight hold {3 * SIZE}",
    ),
    (
        NONE,
        Limits(bytes_max=4 * SIZE - 1),
        "bytes",
        f"this proxy: requests and unread answers in flight hold {3 * SIZE}",
    ),
]


@pytest.mark.parametrize(("route", "total", "reason", "said"), LIMITED)
async def test_one_request_too_many_is_turned_away_in_the_routers_name(
    route: Limits, total: Limits, reason: str, said: str
) -> None:
    async with full(3, route=route, total=total) as (proxy, _):
        seen = await ended(proxy.infer(REQUEST))

        assert (seen.code, seen.is_routers, seen.variant) == (EXHAUSTED, True, None)
        assert seen.message.startswith(said)
        [report] = proxy.reports
        assert (report.turned_away, report.route) == (reason, "digits")
        assert (report.status_code, report.origin_router) == (EXHAUSTED.value[0], True)
        assert (report.variant, list(report.attempts)) == ("", [])
        assert report.request_bytes == SIZE


@pytest.mark.parametrize(("route", "total", "reason", "said"), LIMITED)
async def test_there_is_room_again_after_an_answer(
    route: Limits, total: Limits, reason: str, said: str
) -> None:
    async with full(3, route=route, total=total) as (proxy, gate):
        assert (await ended(proxy.infer(REQUEST))).code is EXHAUSTED
        gate.open()
        await eventually(lambda: sum(each.status_code == 0 for each in proxy.reports) == 3)
        await eventually(lambda: proxy.plane.admission.bytes == 0)
        assert (await ended(proxy.infer(REQUEST))).code is OK


def one_at_a_time(address: str, canary: str = "") -> RouteTable:
    one = Limits(in_flight_max=1, bytes_max=2 * SIZE)
    route = split_route(0, limits=one, fallback=True)
    return table_of(address, canary or address, route, limits=one)


async def test_there_is_room_again_after_an_error() -> None:
    async with (
        OipBackend(failing(grpc.StatusCode.INTERNAL)) as backend,
        ProxyRig(one_at_a_time(backend.address)) as proxy,
    ):
        codes = {(await ended(proxy.infer(REQUEST))).code for _ in range(5)}
        assert codes == {grpc.StatusCode.INTERNAL}
        await assert_all_let_out(proxy)


async def test_there_is_room_again_after_a_cancel() -> None:
    async with (
        OipBackend(hanging()) as backend,
        ProxyRig(one_at_a_time(backend.address)) as proxy,
    ):
        for count in (1, 2, 3):
            call = proxy.infer(REQUEST)
            await backend.wait_seen(count)
            call.cancel()
            await backend.wait_cancelled(count)
            await eventually(lambda: len(proxy.reports) == count)  # noqa: B023 - waited for here
        await assert_all_let_out(proxy)


async def test_there_is_room_again_after_a_deadline() -> None:
    async with (
        OipBackend(hanging()) as backend,
        ProxyRig(one_at_a_time(backend.address)) as proxy,
    ):
        for _ in range(3):
            seen = await ended(proxy.infer(REQUEST, timeout=0.1))
            assert seen.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: len(proxy.reports) == 3)
        await assert_all_let_out(proxy)


async def test_a_request_that_goes_to_stable_instead_is_counted_once() -> None:
    gate = Gate()
    route = split_route(fallback=True, limits=Limits(in_flight_max=1))
    async with (
        OipBackend(gate) as stable,
        OipBackend(failing(grpc.StatusCode.UNAVAILABLE)) as canary,
        ProxyRig(table_of(stable.address, canary.address, route)) as proxy,
    ):
        call = proxy.infer(REQUEST)
        await stable.wait_seen(1)
        assert proxy.plane.admission.in_flight == 1
        assert proxy.plane.admission.bytes == SIZE
        gate.open()
        await call
        await assert_all_let_out(proxy)


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (request_body("nobody"), ()),
        (b"\x0a\xff\xff", ()),
        (REQUEST, (("x-coalmine-variant", "nobody"),)),
        (REQUEST, PIN_CANARY),
    ],
)
async def test_a_request_that_is_refused_for_another_reason_takes_no_room(
    body: bytes, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    async with (
        OipBackend() as backend,
        ProxyRig(one_at_a_time(backend.address, closed_port())) as proxy,
    ):
        for _ in range(3):
            assert (await ended(proxy.infer(body, metadata=metadata))).is_routers
        await assert_all_let_out(proxy)
        assert {each.turned_away for each in proxy.reports} == {""}
        assert (await ended(proxy.infer(REQUEST))).code is OK


async def test_a_backend_without_any_address_turns_requests_away_as_not_ready() -> None:
    async with ProxyRig(one_at_a_time("dns:///nobody.invalid:1")) as proxy:
        seen = await ended(proxy.infer(REQUEST))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.UNAVAILABLE, True)
        assert proxy.reports[0].turned_away == "not_ready"
        await assert_all_let_out(proxy)


async def test_a_request_larger_than_all_that_is_allowed_never_gets_in() -> None:
    async with (
        OipBackend() as backend,
        ProxyRig(limited(backend.address, route=Limits(bytes_max=SIZE - 1))) as proxy,
    ):
        assert (await ended(proxy.infer(REQUEST))).code is EXHAUSTED
        assert not backend.seen


async def test_one_routes_limit_is_not_its_neighbours() -> None:
    gate = Gate()
    one = Limits(in_flight_max=1)
    other = Route("faces", Match("faces"), (Variant("stable", "blue", weight_bp=10_000),))
    async with (
        OipBackend(gate) as backend,
        ProxyRig(
            table_of(backend.address, backend.address, split_route(0, limits=one), other)
        ) as proxy,
    ):
        first = proxy.infer(REQUEST)
        await backend.wait_seen(1)
        assert (await ended(proxy.infer(REQUEST))).code is EXHAUSTED
        others = [proxy.infer(request_body("faces")) for _ in range(5)]
        await backend.wait_seen(6)
        gate.open()
        assert {(await ended(each)).code for each in (first, *others)} == {OK}
        await assert_all_let_out(proxy)


async def test_a_new_table_goes_on_counting_what_is_in_flight_with_its_own_limits() -> None:
    async with full(3, route=Limits(in_flight_max=3), total=NONE) as (proxy, _):
        address = proxy.plane.routing.by_name["digits"].stable.endpoints.pick()
        assert address is not None
        smaller = table_of(
            address.name, address.name, split_route(0, limits=Limits(in_flight_max=2)), revision=4
        )
        await proxy.use_access(smaller)
        seen = await ended(proxy.infer(REQUEST))
        assert seen.message.startswith("route 'digits': 2 requests are in flight")


async def test_a_shadows_copy_takes_no_room() -> None:
    route = split_route(0, shadows=(Shadow("canary", 10_000),), limits=Limits(in_flight_max=1))
    async with (
        OipBackend() as backend,
        ProxyRig(table_of(backend.address, backend.address, route)) as proxy,
    ):
        assert [(await ended(proxy.infer(REQUEST))).code for _ in range(5)] == [OK] * 5
        await assert_all_let_out(proxy)


async def test_of_a_crowd_exactly_as_many_get_in_as_are_allowed() -> None:
    gate = Gate()
    route = split_route(0, limits=Limits(in_flight_max=10))
    async with (
        OipBackend(gate) as backend,
        ProxyRig(table_of(backend.address, backend.address, route)) as proxy,
    ):
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(ended(proxy.infer(REQUEST))) for _ in range(50)]
            await eventually(lambda: len(proxy.reports) == 40)
            gate.open()
        answers: list[Ended] = [call.result() for call in calls]
        assert sum(each.code is OK for each in answers) == 10
        assert sum(each.code is EXHAUSTED for each in answers) == 40
        await assert_all_let_out(proxy)

"""Reading over a real socket: status, watch, history, mismatches, metrics."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.file import RouterConfig
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.oip_backend import OipBackend
from tests.doubles.proxy import FollowingProxy


@pytest.fixture
async def backend() -> AsyncIterator[OipBackend]:
    async with OipBackend() as backend:
        yield backend


@pytest.fixture
def config(tmp_path: Path, backend: OipBackend) -> RouterConfig:
    return router_config(tmp_path, backend.address, green="127.0.0.1:1")


@pytest.fixture
async def rig(config: RouterConfig) -> AsyncIterator[ControlRig]:
    async with ControlRig(config) as rig:
        yield rig


async def watched(
    rig: ControlRig, interval_ms: int
) -> "grpc.aio.UnaryStreamCall[pb.WatchRouteRequest, pb.RouteStatus]":
    return rig.stub.WatchRoute(pb.WatchRouteRequest(route="digits", interval_ms=interval_ms))


async def test_routes_are_listed_with_the_revision(rig: ControlRig) -> None:
    listed = await rig.stub.ListRoutes(pb.ListRoutesRequest())

    assert listed.revision == 1
    assert [route.name for route in listed.routes] == ["digits"]


async def test_the_status_holds_readiness_proxies_and_what_was_learned(rig: ControlRig) -> None:
    proxy = FollowingProxy("p")
    rig.follow(proxy)
    await proxy.serves(1)
    async for status in rig.stub.WatchRoute(
        pb.WatchRouteRequest(route="digits", interval_ms=100), timeout=10
    ):
        asked = all("not asked" not in each.reason for each in status.variants)
        if asked and status.proxies:
            break

    stable, canary, int8 = status.variants
    assert (stable.ready, canary.ready, int8.ready) == (True, True, False)
    assert int8.reason.startswith("127.0.0.1:1: no connection: ")
    assert [each.requests for each in status.variants] == [1, 1, 1]
    assert status.counting_since_ns == 1
    assert status.proxies[0].proxy_id == "p"


async def test_a_disk_that_takes_no_changes_is_in_the_status_until_it_does(
    rig: ControlRig, tmp_path: Path
) -> None:
    async def troubles() -> list[str]:
        return list((await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))).troubles)

    assert await troubles() == []
    other = sqlite3.connect(tmp_path / "control.db")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON changes BEGIN SELECT RAISE(FAIL, 'x'); END")
    with pytest.raises(grpc.aio.AioRpcError, match="could not be written to disk: x"):
        await rig.set_weights(canary=1)
    told = f"{tmp_path}/control.db: takes no changes: x; serves by the last table that was saved"
    assert await troubles() == [f"{told}, revision 1"]
    other.execute("DROP TRIGGER full")
    other.close()
    await rig.set_weights(canary=1)
    assert await troubles() == []


async def test_reading_a_status_asks_no_backend(rig: ControlRig, backend: OipBackend) -> None:
    await backend.wait_seen(2)
    seen = len(backend.seen)
    for _ in range(20):
        await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))

    assert len(backend.seen) == seen


async def test_a_watcher_hears_at_once_at_each_change_and_each_interval(rig: ControlRig) -> None:
    call = await watched(rig, interval_ms=60_000)
    revisions = []
    async with asyncio.timeout(10):
        for weight_bp in (1, 2, 3):
            status = await call.read()
            assert isinstance(status, pb.RouteStatus)
            revisions.append(status.revision)
            await rig.set_weights(canary=weight_bp)
        quick = await watched(rig, interval_ms=100)
        for _ in range(3):
            await quick.read()

    assert revisions == [1, 2, 3]
    call.cancel()
    quick.cancel()


@pytest.mark.parametrize("interval_ms", [1, 99, 3_600_001, 2**64 - 1])
async def test_an_interval_out_of_bounds_is_invalid(rig: ControlRig, interval_ms: int) -> None:
    call = await watched(rig, interval_ms)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_watching_an_unknown_route_is_not_found(rig: ControlRig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.WatchRoute(pb.WatchRouteRequest(route="nix")).read()

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_history_is_cut_at_its_limit_and_a_limit_over_a_thousand_is_invalid(
    rig: ControlRig,
) -> None:
    for weight_bp in range(1, 60):
        await rig.set_weights(canary=weight_bp)

    async def revisions(limit: int) -> list[int]:
        request = pb.GetHistoryRequest(route="digits", limit=limit)
        return [each.revision for each in (await rig.stub.GetHistory(request)).changes]

    assert await revisions(3) == [60, 59, 58]
    assert len(await revisions(0)) == 50
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await revisions(1_001)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_history_of_a_route_that_never_was_is_not_found(rig: ControlRig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.GetHistory(pb.GetHistoryRequest(route="nix"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_trials_come_from_what_was_learned_also_of_a_route_that_is_gone(
    rig: ControlRig,
) -> None:
    async def listed(route: str, **asked: Any) -> int:
        request = pb.ListTrialsRequest(route=route, **asked)
        return len((await rig.stub.ListTrials(request)).trials)

    assert await listed("digits", candidate="canary", limit=3) == await listed("gone") == 1
    assert rig.learned.trials_asked == [("digits", "canary", 3), ("gone", "", 20)]
    for asked, code in (
        ({"route": "nix"}, grpc.StatusCode.NOT_FOUND),
        ({"route": "digits", "limit": 1_001}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"route": "digits", "candidate": "\n"}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(**asked)
        assert caught.value.code() is code


async def test_mismatches_come_from_what_was_learned(rig: ControlRig) -> None:
    listed = await rig.stub.ListMismatches(
        pb.ListMismatchesRequest(
            route="digits", output="logits", candidate="int8", kind="value", worst=True
        )
    )
    shown = await rig.stub.GetMismatch(pb.GetMismatchRequest(route="digits", id="m1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.GetMismatch(pb.GetMismatchRequest(route="digits", id="m2"))

    assert [each.id for each in listed.mismatches] == ["m1"]
    assert rig.learned.asked == [
        pb.ListMismatchesRequest(
            route="digits", output="logits", candidate="int8", kind="value", worst=True, limit=20
        )
    ]
    assert shown.request == b"body"
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_metrics_follow_the_table_and_the_proxies(rig: ControlRig) -> None:
    proxy = FollowingProxy("p")
    rig.follow(proxy)
    await proxy.serves(1)
    await rig.set_weights(canary=1_250)

    def value(name: str, **labels: str) -> float | None:
        return rig.registry.get_sample_value(f"coalmine_router_{name}", labels)

    assert value("table_revision") == 2
    assert value("weight_ratio", route="digits", variant="canary") == 0.125
    assert value("weight_ratio", route="digits", variant="stable") == 0.875
    assert value("shadow_ratio", route="digits", variant="int8") == 0
    assert (value("proxies"), value("proxies_current")) == (1, 1)
    assert value("control_turned_away_total", kind="follow") == 0
    assert value("variant_available", route="digits", variant="canary") is None
    await proxy.reaches(pb.VariantReach(route="digits", variant="canary", addresses=2, available=1))
    status = await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))
    while not status.proxies[0].reach:
        status = await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))
    assert value("variant_available", route="digits", variant="canary") == 1


async def test_a_restart_resumes_the_split_the_revision_and_the_history(
    config: RouterConfig,
) -> None:
    async with ControlRig(config) as rig:
        await rig.set_weights(canary=700)
        before = rig.table()
    async with ControlRig(config) as rig:
        history = await rig.stub.GetHistory(pb.GetHistoryRequest(route="digits"))

        assert rig.table() == before
        assert [each.revision for each in history.changes] == [2, 1]

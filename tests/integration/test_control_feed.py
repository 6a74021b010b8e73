"""The table feed over a real socket: bounds, slow and broken followers, the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from structlog.testing import capture_logs

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import TableFeedStub, add_TableFeedServicer_to_server
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.feed import TableFeed
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.proxy import FollowingProxy
from tests.doubles.waiting import eventually


def table_of(revision: int, routes: int = 1) -> RouteTable:
    return RouteTable(
        revision,
        (Backend("blue", ("localhost:1",)),),
        tuple(
            Route(
                f"{number:0500}",
                Match(f"m{number}"),
                (Variant("stable", "blue", weight_bp=10_000),),
            )
            for number in range(routes)
        ),
    )


class Feed:
    """A feed behind a real port, without the rest of the control process."""

    def __init__(self, routes: int = 1, followers_max: int = 4) -> None:
        self.current = CurrentTable(table_of(1, routes))
        self.feed = TableFeed(self.current, SystemClock(), followers_max=followers_max)
        # A call that nobody holds is cancelled.
        self.calls: list[object] = []

    async def __aenter__(self) -> Self:
        self.server = grpc.aio.server()
        add_TableFeedServicer_to_server(self.feed, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.feed.end_streams()
        await self.channel.close()
        await self.server.stop(None)

    def publish(self, revision: int) -> None:
        self.current.swap(replace(self.current.table, revision=revision))

    def follow(self) -> "grpc.aio.StreamStreamCall[pb.ProxyState, pb.RouteTable]":
        return TableFeedStub(self.channel).Follow()


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    async with Feed() as feed:
        yield feed


async def read(call: "grpc.aio.StreamStreamCall[pb.ProxyState, pb.RouteTable]") -> pb.RouteTable:
    table = await call.read()
    assert isinstance(table, pb.RouteTable)
    return table


async def known(feed: Feed) -> None:
    """Return once a proxy has said who it is."""
    async with asyncio.timeout(5):
        while not feed.feed.proxies():
            await asyncio.sleep(0)


async def test_a_follower_is_sent_the_table_before_it_says_a_word(feed: Feed) -> None:
    call = feed.follow()

    assert (await read(call)).revision == 1
    assert not feed.feed.proxies()


async def test_how_long_a_proxy_served_without_control_stays_known_while_it_follows(
    feed: Feed,
) -> None:
    call = feed.follow()
    await call.write(pb.ProxyState(proxy_id="p", revision=1, saved_ns=34 * 10**9))
    await known(feed)
    await call.write(pb.ProxyState(proxy_id="p", revision=1, refused="then it was sent one"))
    async with asyncio.timeout(5):
        while not feed.feed.proxies()[0].refused:
            await asyncio.sleep(0)
    assert feed.feed.proxies()[0].saved_ns == 34 * 10**9


async def test_a_slow_follower_gets_the_newest_table_and_not_all_it_missed() -> None:
    # A table of a megabyte doesn't fit into the transport's windows many times over.
    async with Feed(routes=2_000) as feed:
        call = feed.follow()
        await read(call)
        for revision in range(2, 102):
            feed.publish(revision)
            await asyncio.sleep(0)
        got = [(await read(call)).revision]
        while got[-1] < 101:
            got.append((await read(call)).revision)

    assert got[-1] == 101
    assert len(got) < 50


async def test_a_follower_over_the_limit_is_turned_away_until_another_leaves(feed: Feed) -> None:
    calls = [feed.follow() for _ in range(4)]
    for call in calls:
        await read(call)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await feed.follow().read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert feed.feed.turned_away == 1

    await calls[0].done_writing()
    assert await calls[0].read() is grpc.aio.EOF

    assert (await read(feed.follow())).revision == 1


@pytest.mark.parametrize("proxy_id", ["", "x" * 129])
async def test_a_proxy_without_a_usable_id_is_refused(feed: Feed, proxy_id: str) -> None:
    call = feed.follow()
    await call.write(pb.ProxyState(proxy_id=proxy_id))
    await read(call)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_proxy_that_connects_again_replaces_its_broken_stream(feed: Feed) -> None:
    old = feed.follow()
    await read(old)
    await old.write(pb.ProxyState(proxy_id="p", revision=1))
    await known(feed)
    new = feed.follow()
    await read(new)
    await new.write(pb.ProxyState(proxy_id="p", revision=1))

    assert await old.read() is grpc.aio.EOF
    assert [each.proxy_id for each in feed.feed.proxies()] == ["p"]


async def test_a_revision_from_another_life_is_no_acknowledgement(feed: Feed) -> None:
    call = feed.follow()
    await read(call)
    await call.write(pb.ProxyState(proxy_id="p", revision=50))
    await known(feed)

    assert await feed.feed.wait_for_proxies(1, 0.05) == (0, 1)
    await call.write(pb.ProxyState(proxy_id="p", revision=1))
    assert await feed.feed.wait_for_proxies(1, 5.0) == (1, 1)


def reach(variant: str, available: int, route: str = "0" * 500, **fields: Any) -> pb.VariantReach:
    return pb.VariantReach(route=route, variant=variant, addresses=2, available=available, **fields)


async def said(feed: Feed, proxy_id: str, *reached: pb.VariantReach) -> None:
    """Let a proxy say what it reaches; return once that is known."""
    call = feed.follow()
    await read(call)
    await call.write(pb.ProxyState(proxy_id=proxy_id, revision=1, reach=reached))
    async with asyncio.timeout(5):
        while proxy_id not in {each.proxy_id for each in feed.feed.proxies()}:
            await asyncio.sleep(0)
    feed.calls.append(call)


async def test_what_each_proxy_reaches_is_told_of_the_route_asked_for(feed: Feed) -> None:
    await said(feed, "p", reach("stable", 1, troubles=["b:1 does not answer"]))

    (proxy,) = feed.feed.proxies("0" * 500)
    assert list(proxy.reach) == [reach("stable", 1, troubles=["b:1 does not answer"])]
    assert not feed.feed.proxies("another")[0].reach


async def test_of_all_proxies_the_one_that_can_call_the_fewest_counts(feed: Feed) -> None:
    assert feed.feed.least_available() == {}
    for proxy_id, available in (("p1", 2), ("p2", 0), ("p3", 1)):
        await said(feed, proxy_id, reach("stable", available))

    assert feed.feed.least_available() == {("0" * 500, "stable"): 0}


async def test_what_a_proxy_says_it_reaches_is_bounded_by_the_table(feed: Feed) -> None:
    made_up = [reach(f"v{each}", 1) for each in range(1_000)]
    elsewhere = [reach("stable", 1, route=f"r{each}") for each in range(1_000)]
    much = reach("stable", 0, troubles=["x" * 10_000] * 100)
    await said(feed, "p", *made_up, *elsewhere, much)

    (proxy,) = feed.feed.proxies("0" * 500)
    assert [each.variant for each in proxy.reach] == ["stable"]
    assert proxy.ByteSize() < 5_000


async def test_what_is_wrong_with_a_proxy_is_told_and_bounded(feed: Feed) -> None:
    call = feed.follow()
    await call.write(pb.ProxyState(proxy_id="p", trouble="t.pb: is not saved: " + "x" * 10_000))
    await known(feed)
    (proxy,) = feed.feed.proxies()
    assert proxy.trouble.startswith("t.pb: is not saved: xxx")
    assert len(proxy.trouble) == 300


async def test_a_refusal_that_is_said_again_does_not_stand_for_a_newer_table(feed: Feed) -> None:
    call = feed.follow()
    await read(call)
    await call.write(pb.ProxyState(proxy_id="p", refused="no", refused_revision=1))
    await known(feed)
    assert await feed.feed.wait_for_proxies(1, 5.0) == (0, 1)
    feed.publish(2)
    await read(call)
    again = pb.ProxyState(proxy_id="p", refused="no", refused_revision=1)
    again.reach.append(reach("stable", 2))
    await call.write(again)
    async with asyncio.timeout(5):
        while not feed.feed.least_available():
            await asyncio.sleep(0)

    acknowledged = asyncio.ensure_future(feed.feed.wait_for_proxies(2, 5.0))
    await asyncio.sleep(0.02)
    assert not acknowledged.done()
    await call.write(pb.ProxyState(proxy_id="p", revision=2))
    assert await acknowledged == (1, 1)


async def test_followers_that_break_off_leave_no_error_behind(feed: Feed) -> None:
    with capture_logs() as logs:
        for revision in range(2, 200, 2):
            call = feed.follow()
            await read(call)
            feed.publish(revision)
            call.cancel()
            feed.publish(revision + 1)
        last = feed.follow()
        await read(last)
        feed.publish(1_000)
        assert (await read(last)).revision == 1_000

    assert [each for each in logs if each["log_level"] == "error"] == []


async def test_open_streams_do_not_hold_up_a_graceful_stop(tmp_path: Path) -> None:
    async with ControlRig(router_config(tmp_path, "127.0.0.1:1")) as rig:
        proxy = FollowingProxy("p")
        rig.follow(proxy)
        await proxy.serves(1)
        watch = rig.stub.WatchRoute(pb.WatchRouteRequest(route="digits"))
        await watch.read()
        began = time.monotonic()
        await rig.stop(grace_s=30.0)
        took_s = time.monotonic() - began

        assert took_s < 1.0
        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is grpc.StatusCode.OK


async def test_after_the_end_no_stream_opens(feed: Feed) -> None:
    feed.feed.end_streams()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await feed.follow().read()

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# ---------------------------------------------------------------- without the state


async def test_a_table_by_the_file_alone_is_sent_to_proxies_that_have_none_until_the_state_is_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "control.db").mkdir()
    async with ControlRig(router_config(tmp_path, "127.0.0.1:1")) as rig:
        serving, new = FollowingProxy("serving", revision=9), FollowingProxy("new")
        rig.follow(serving)
        rig.follow(new)
        await new.serves(1)
        asked = pb.GetRouteRequest(route="digits")
        status = await rig.stub.GetRoute(asked)
        assert {each.proxy_id: each.revision for each in status.proxies} == {"serving": 9, "new": 1}
        assert "serves by the configuration file" in status.troubles[0]
        assert serving.tables == []
        assert rig.registry.get_sample_value("coalmine_router_state_usable") == 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.set_weights(int8=0, canary=0, stable=10_000)
        assert refused.value.details() == status.troubles[0]
        (tmp_path / "control.db").rmdir()
        await serving.serves(1)
        assert rig.registry.get_sample_value("coalmine_router_state_usable") == 1
        assert not (await rig.stub.GetRoute(asked)).troubles
        await eventually((tmp_path / "route-table.pb").exists)

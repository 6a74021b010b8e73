"""The reporter against a real Reports service: bounded, in batches, nothing lost or told twice."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import grpc
import pytest
from structlog.testing import capture_logs

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.proxy.outbox import WINDOW_BYTES, Outbox
from coalmine_router.proxy.reporter import Reporter, open_stream
from tests.doubles.clock import HandClock
from tests.doubles.control_process import ControlProcess
from tests.doubles.relay import Relay
from tests.doubles.restartable_intake import RestartableIntake
from tests.doubles.waiting import eventually


class Reporting:
    """A reporter with its outbox, and the reports it was offered."""

    def __init__(self, *, bytes_max: int = 64 * 1024 * 1024) -> None:
        self.outbox = Outbox("p1", bytes_max=bytes_max)
        self.reporter = Reporter(self.outbox, SystemClock())
        self.offered = 0

    def offer(self, reports: int, *, body: int = 0, text: str = "") -> None:
        """Offer so many reports; each began at its own number of nanoseconds."""
        for number in range(self.offered, self.offered + reports):
            report = pb.Report(started_ns=number, status_message=text).SerializeToString()
            bodies = pb.Report(request_body=bytes(body)).SerializeToString() if body else b""
            self.reporter.offer(report, bodies)
        self.offered += reports

    @contextlib.asynccontextmanager
    async def sending(self, address: str) -> AsyncIterator[None]:
        options = [
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.initial_reconnect_backoff_ms", 50),
        ]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            task = asyncio.create_task(
                self.reporter.run(channel.channel_ready, lambda: open_stream(channel))
            )
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def emptied(self) -> None:
        """Return once everything is acknowledged."""
        await eventually(lambda: self.outbox.is_empty)


def started(control: ControlProcess) -> list[int]:
    return [each.started_ns for each in control.reports]


async def test_every_report_arrives_once_and_in_order() -> None:
    async with ControlProcess() as control:
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(5_000)
            await proxy.emptied()
        assert started(control) == list(range(5_000))
        assert [each.number for each in control.batches] == list(range(1, len(control.batches) + 1))
        assert control.batches[-1].offered_total == 5_000
        assert len(control.batches) < 50


async def test_reports_wait_for_a_moment_so_that_many_travel_together() -> None:
    async with ControlProcess() as control:
        proxy = Reporting()
        async with proxy.sending(control.address):
            for _ in range(200):
                proxy.offer(1)
                await asyncio.sleep(0)
            await proxy.emptied()
        assert len(control.batches) < 20


async def test_what_is_not_acknowledged_is_sent_again_with_its_number_and_totals() -> None:
    async with ControlProcess() as control:
        control.mute = True
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(10)
            await control.wait(lambda: len(control.reports) == 10)
            await control.stop()
            first = control.batches.copy()
            control.batches.clear()
            control.mute = False
            await control.start()
            await proxy.emptied()
        assert control.batches[: len(first)] == first


async def test_over_streams_that_are_cut_at_any_byte_nothing_is_lost_or_counted_twice() -> None:
    chance = random.Random(7)
    async with RestartableIntake() as control, Relay(control.address) as relay:
        proxy = Reporting()
        async with proxy.sending(relay.address):
            for _ in range(12):
                relay.cut_after = chance.randrange(2_000, 60_000)
                proxy.offer(500, body=200)
                await asyncio.sleep(0.06)
            relay.cut_after = None
            relay.cut()
            await proxy.emptied()
        assert relay.cuts > 2
        assert sorted(control.seen.elements()) == list(range(6_000))
        assert (control.totals.offered, control.totals.received) == (6_000, 6_000)
        assert not control.totals.dropped


async def test_what_a_killed_control_did_not_acknowledge_its_successor_gets() -> None:
    async with RestartableIntake() as control:
        proxy = Reporting()
        seen: set[int] = set()
        async with proxy.sending(control.address):
            for _ in range(4):
                proxy.offer(2_000)
                before = control.totals.received
                await eventually(lambda: control.totals.received > before)  # noqa: B023
                proxy.offer(2_000)
                await control.stop()
                seen |= set(control.seen)
                assert max(control.seen.values()) == 1
                proxy.offer(100)
                await control.start()
            await proxy.emptied()
        seen |= set(control.seen)
        assert seen == set(range(proxy.offered))
        assert max(control.seen.values()) == 1
        assert not proxy.outbox.dropped
        # What its predecessors took in is none of what the last one is told of.
        assert control.totals.offered == control.totals.received <= proxy.offered


async def test_a_control_process_without_news_of_the_drops_before_it_is_told_of_them() -> None:
    async with RestartableIntake() as control:
        proxy = Reporting(bytes_max=60_000)
        await control.stop()
        proxy.offer(1_000)
        dropped = proxy.outbox.dropped["buffer_full"]
        async with proxy.sending(control.address):
            await control.start()
            await proxy.emptied()
        totals = control.totals
        assert 0 < dropped < 1_000
        assert totals.dropped == {"buffer_full": dropped}
        assert totals.offered == totals.received + dropped == 1_000


async def test_a_control_process_that_does_not_read_costs_no_more_than_the_buffer() -> None:
    async with ControlProcess() as control:
        control.deaf = True
        proxy = Reporting(bytes_max=4_000_000)
        async with proxy.sending(control.address):
            for _ in range(1_000):
                proxy.offer(1, body=20_000)
                proxy.offer(20, text="x" * 400)
                await asyncio.sleep(0)
            dropped = proxy.outbox.dropped["buffer_full"]
            assert dropped > 0
            assert proxy.outbox._kept_bytes <= 4_001_000
            control.deaf = False
            await proxy.emptied()
        assert len(control.reports) == 21_000 - dropped
        assert any(each.uncopied == "pressure" for each in control.reports)


async def test_a_control_process_that_is_slow_slows_the_sending() -> None:
    async with ControlProcess() as control:
        control.mute = True
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(100, body=200_000)
            await eventually(lambda: proxy.outbox.is_window_full)
            await asyncio.sleep(0.2)
            sent = sum(len(each.data) for each in proxy.outbox.unacknowledged_batches())
            assert WINDOW_BYTES <= sent < WINDOW_BYTES * 1.2
            assert len(proxy.outbox.waiting) > 50


async def test_a_report_that_is_no_message_costs_its_batch_and_no_other() -> None:
    async with RestartableIntake() as control:
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.reporter.offer(b"\xff\xff\xff")
            await eventually(lambda: proxy.outbox.dropped["refused"] == 1)
            proxy.offer(5)
            await proxy.emptied()
        totals = control.totals
        assert (totals.offered, totals.received, totals.dropped) == (6, 5, {"refused": 1})


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
async def test_a_batch_that_no_control_process_can_read_does_not_stop_the_others(
    code: grpc.StatusCode,
) -> None:
    async with ControlProcess() as control:
        control.refusing = code
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(3)
            await eventually(lambda: proxy.outbox.dropped["refused"] == 3)
            control.refusing = None
            control.batches.clear()
            proxy.offer(2)
            await proxy.emptied()
        assert started(control) == [3, 4]
        assert control.batches[-1].dropped_total == {"refused": 3}


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    ],
)
async def test_a_control_process_that_refuses_proxies_for_now_costs_no_report(
    code: grpc.StatusCode,
) -> None:
    async with ControlProcess() as control:
        control.refusing = code
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(3)
            await control.wait(lambda: len(control.batches) > 5)
            control.refusing = None
            await proxy.emptied()
        assert not proxy.outbox.dropped


async def test_what_is_left_is_sent_when_the_proxy_ends() -> None:
    async with ControlProcess() as control:
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(1)
            await proxy.emptied()
            proxy.offer(999)
        assert started(control) == list(range(1_000))
        assert proxy.outbox.is_empty


async def test_what_is_left_is_sent_when_the_proxy_ends_amid_a_write() -> None:
    async with ControlProcess() as control:
        control.deaf = True
        proxy = Reporting()
        async with proxy.sending(control.address):
            proxy.offer(50, body=200_000)
            await eventually(lambda: proxy.outbox.is_window_full)
            control.deaf = False
        assert started(control) == list(range(50))


async def test_the_end_of_a_proxy_waits_a_second_at_most_for_a_control_that_is_gone() -> None:
    async with ControlProcess() as control:
        proxy, idle = Reporting(), Reporting()
        await control.stop()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with idle.sending(control.address):
            await asyncio.sleep(0)
        assert loop.time() - began_s < 0.5
        async with proxy.sending(control.address):
            proxy.offer(1)
            await asyncio.sleep(0)
        assert loop.time() - began_s < 2.5


async def test_reports_that_nobody_took_for_a_minute_expire_and_that_is_said_once() -> None:
    outbox = Outbox("p1")
    a_minute_each_time = HandClock(step_ns=61 * 10**9)
    reporter = Reporter(outbox, a_minute_each_time, tick_s=0.01)
    report = pb.Report(started_ns=1).SerializeToString()

    async def never() -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        task = asyncio.create_task(reporter.run(never, lambda: pytest.fail("no connection")))
        reporter.offer(report)
        await eventually(lambda: outbox.dropped["expired"] == 1)
        reporter.offer(report)
        await eventually(lambda: outbox.dropped["expired"] == 2)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    said = [each["event"] for each in logs]
    assert said.count("dropping_reports") <= 2
    assert said[0] == "dropping_reports"

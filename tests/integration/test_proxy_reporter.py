"""The reporter against a real Reports service: bounded, in batches, nothing lost in silence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from coalmine.control.v1 import control_pb2_grpc
from coalmine_router.proxy.exchange import Began, Copied, Ended, Trace
from coalmine_router.proxy.reporter import Reporter
from tests.doubles.control_process import ControlProcess


@contextlib.asynccontextmanager
async def reporting(reporter: Reporter, address: str) -> AsyncIterator[None]:
    options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        send = control_pb2_grpc.ReportsStub(channel).Send
        task = asyncio.create_task(reporter.run(channel.channel_ready, send))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def report(number: int, body: bytes = b"") -> Ended:
    """Return a request that began at `number` ns; with a body, one that a shadow wants."""
    return Ended(
        trace=Trace(b"t" * 16, b"s" * 8, b"c" * 8, None, "", sampled=False),
        began=Began(number, 0),
        ended_ns=1,
        assigned=None,
        call_began_ns=0,
        code=grpc.StatusCode.OK,
        message="",
        here=False,
        request_bytes=len(body),
        response_bytes=0,
        copied=Copied(body, b"", []) if body else None,
        uncopied="",
    )


async def test_every_report_arrives_once_and_in_order() -> None:
    async with ControlProcess() as control:
        reporter = Reporter("p1", "a.B/C")
        async with reporting(reporter, control.address):
            for number in range(5_000):
                reporter.offer(report(number))
            await control.wait(lambda: len(control.reports) == 5_000)
        assert [each.started_ns for each in control.reports] == list(range(5_000))
        assert control.batches[-1].offered_total == 5_000
        assert len(control.batches) < 50


async def test_a_full_buffer_drops_the_newest_and_counts_it() -> None:
    async with ControlProcess() as control:
        reporter = Reporter("p1", "a.B/C", buffer_bytes_max=12_000)
        for number in range(10):
            reporter.offer(report(number, bytes(2_000)))
        assert reporter.dropped == {"buffer_full": 6}
        async with reporting(reporter, control.address):
            await control.wait(lambda: len(control.reports) == 4)
        assert [each.started_ns for each in control.reports] == [0, 1, 2, 3]
        assert control.batches[-1].dropped_total == {"buffer_full": 6}


async def test_reports_made_while_control_is_away_arrive_when_it_is_back() -> None:
    async with ControlProcess() as control:
        reporter = Reporter("p1", "a.B/C")
        async with reporting(reporter, control.address):
            reporter.offer(report(0))
            await control.wait(lambda: len(control.reports) == 1)
            await control.stop()
            await control.start()
            await _until_one_arrives(reporter, control)
            for number in range(100, 200):
                reporter.offer(report(number))
            await control.wait(lambda: control.reports[-1].started_ns == 199)
        arrived = {each.started_ns for each in control.reports}
        assert set(range(100, 200)) <= arrived
        last = control.batches[-1]
        assert last.offered_total == len(control.reports) + sum(last.dropped_total.values())


async def _until_one_arrives(reporter: Reporter, control: ControlProcess) -> None:
    """A broken stream shows at the next write: the batch on it is lost, and counted."""
    before = len(control.reports)
    number = 1
    while len(control.reports) == before:
        reporter.offer(report(number))
        number += 1
        with contextlib.suppress(TimeoutError):
            await control.wait(lambda: len(control.reports) > before, timeout_s=0.3)


async def test_a_control_process_that_does_not_read_costs_no_more_than_the_buffer() -> None:
    async with ControlProcess() as control:
        control.deaf = True
        reporter = Reporter("p1", "a.B/C", buffer_bytes_max=4_000_000)
        async with reporting(reporter, control.address):
            for number in range(100):
                reporter.offer(report(number, bytes(200_000)))
                await asyncio.sleep(0)
            assert reporter.dropped["buffer_full"] > 0
            control.deaf = False
            await control.wait(
                lambda: len(control.reports) == 100 - reporter.dropped["buffer_full"]
            )


async def test_what_is_left_is_sent_when_the_proxy_ends() -> None:
    async with ControlProcess() as control:
        reporter = Reporter("p1", "a.B/C")
        async with reporting(reporter, control.address):
            reporter.offer(report(0))
            await control.wait(lambda: len(control.reports) == 1)
            for number in range(1, 1_000):
                reporter.offer(report(number))
        assert len(control.reports) == 1_000


async def test_what_is_left_is_sent_when_the_proxy_ends_amid_a_write() -> None:
    async with ControlProcess() as control:
        control.deaf = True
        reporter = Reporter("p1", "a.B/C")
        async with reporting(reporter, control.address):
            for number in range(50):
                reporter.offer(report(number, bytes(200_000)))
            before = -1
            while before != (before := reporter._sent) or not before:
                await asyncio.sleep(0.1)
            assert before < 50
            control.deaf = False
        assert [each.started_ns for each in control.reports] == list(range(50))


async def test_a_control_process_learns_what_was_sent_to_the_one_before() -> None:
    async with ControlProcess() as control:
        reporter = Reporter("p1", "a.B/C")
        async with reporting(reporter, control.address):
            for number in range(100):
                reporter.offer(report(number))
            await control.wait(lambda: len(control.reports) == 100)
            await control.stop()
            control.batches.clear()
            await control.start()
            await _until_one_arrives(reporter, control)
        first = control.batches[0]
        assert first.sent_total >= 100
        lost = sum(first.dropped_total.values())
        assert first.offered_total == first.sent_total + lost + len(first.reports)


def test_the_buffer_counts_what_callers_wrote_as_well() -> None:
    trace = Trace(b"t" * 16, b"s" * 8, b"c" * 8, None, "a=" + "b" * 8_000, sampled=False)
    copied = Copied(b"", b"", [("k", "v" * 7_999)])
    plain = report(0)
    assert plain._replace(trace=trace, copied=copied).held_bytes == plain.held_bytes + 16_002

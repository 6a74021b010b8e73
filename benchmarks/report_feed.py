"""Reports for a control process, as a proxy would send them, and what it makes of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from benchmarks.load import cpu_s
from benchmarks.messages import answer, request
from benchmarks.shadow_stage import LIVE, ROUTE
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine.inference import MODEL_INFER

_BATCH_REPORTS = 32
# Copies that may wait for their call or be under way; over 1,024 a shadow's queue is full.
_AHEAD_MAX = 768
_LOOK_MS = 100


@dataclass(frozen=True)
class Counted:
    """What the control process has done up to now."""

    at_s: float
    cpu_s: float
    offered: int
    compared: int
    dropped: int
    left_out: int
    share_bp: int
    processes: int


@dataclass(frozen=True)
class Phase:
    """What it has done in some time."""

    before: Counted
    after: Counted

    @property
    def offered_rate(self) -> float:
        return (self.after.offered - self.before.offered) / self._seconds

    @property
    def rate(self) -> float:
        """Comparisons a second."""
        return self._compared / self._seconds

    @property
    def cpu_us(self) -> float:
        """CPU a comparison, with all that leads to it."""
        return (self.after.cpu_s - self.before.cpu_s) / self._compared * 1e6

    @property
    def cores(self) -> float:
        return (self.after.cpu_s - self.before.cpu_s) / self._seconds

    def share(self, name: str) -> float:
        """Return how much of what was offered came to `dropped` or `left_out`."""
        more = getattr(self.after, name) - getattr(self.before, name)
        return float(more) / (self.after.offered - self.before.offered)

    @property
    def _compared(self) -> int:
        return self.after.compared - self.before.compared

    @property
    def _seconds(self) -> float:
        return self.after.at_s - self.before.at_s


class Feed:
    """Reports that go to a control process, at a rate or as fast as it compares."""

    def __init__(self, channel: grpc.aio.Channel, pid: int) -> None:
        self._reports = control_pb2_grpc.ReportsStub(channel)
        self._control = control_pb2_grpc.RouteControlStub(channel)
        self._pid = pid
        self._report = _report()
        self._sent = 0
        self._settled = 0
        self._moved = asyncio.Condition()
        # Reports a second; 0: as fast as they are compared.
        self.rate = 0.0

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            async for _ in self._reports.Send(self._batches()):
                pass

    async def phase(self, seconds: float) -> Phase:
        """Return what is done from now on, in some time."""
        before = await self.counted()
        await asyncio.sleep(seconds)
        return Phase(before, await self.counted())

    async def counted(self) -> Counted:
        """Return what the control process has done up to now."""
        status = await self._control.GetRoute(pb.GetRouteRequest(route=ROUTE), timeout=10)
        [shadow] = status.shadows
        return Counted(
            at_s=time.monotonic(),
            cpu_s=cpu_s(self._pid),
            offered=shadow.offered,
            compared=shadow.compared,
            dropped=sum(shadow.dropped.values()),
            left_out=status.comparing.left_out,
            share_bp=status.comparing.share_bp,
            processes=status.comparing.processes,
        )

    async def _follow(self) -> None:
        asked = pb.WatchRouteRequest(route=ROUTE, interval_ms=_LOOK_MS)
        async for status in self._control.WatchRoute(asked):
            async with self._moved:
                self._settled = sum(
                    each.compared + each.uncompared + sum(each.dropped.values())
                    for each in status.shadows
                )
                self._moved.notify_all()

    async def _batches(self) -> AsyncIterator[pb.ReportBatch]:
        number, due_s = 0, time.monotonic()
        while True:
            if self.rate:
                due_s = max(due_s + _BATCH_REPORTS / self.rate, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            else:
                async with self._moved:
                    await self._moved.wait_for(lambda: self._sent - self._settled < _AHEAD_MAX)
            number += 1
            self._sent += _BATCH_REPORTS
            yield pb.ReportBatch(
                proxy_id="bench",
                number=number,
                reports=[self._report] * _BATCH_REPORTS,
                offered_total=self._sent,
                sent_total=self._sent - _BATCH_REPORTS,
            )


def _report() -> pb.Report:
    """Return what a proxy reports of a small request that is copied."""
    asked, answered = request(), answer()
    now_ns = time.time_ns()
    report = pb.Report(
        trace_id=bytes(range(1, 17)),
        span_id=bytes(range(1, 9)),
        route=ROUTE,
        variant="stable",
        assignment=pb.ASSIGNMENT_SPLIT,
        weight_bp=10_000,
        split_bp={"stable": 10_000},
        method=MODEL_INFER,
        started_ns=now_ns,
        duration_ns=2_000_000,
        request_bytes=len(asked),
        response_bytes=len(answered),
        shadows=[LIVE],
        request_body=asked,
        response_body=answered,
        model=ROUTE,
    )
    report.attempts.add(
        span_id=bytes(range(2, 10)),
        variant="stable",
        backend="stable",
        address="127.0.0.1:1",
        started_ns=now_ns,
        duration_ns=1_500_000,
    )
    report.metadata.add(key="x-user-id", value=b"42")
    return report

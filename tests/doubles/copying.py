"""Copies that run for real, on a table that a test makes, with what became of each written down."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from coalmine.clock import Clock, SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.backends.registry import Backends
from coalmine_router.config.file import RouterConfig
from coalmine_router.observer.copies.copy_limits import EJECTION, CopyLimits, settings_by_copy
from coalmine_router.observer.copies.copy_sender import CopySender
from coalmine_router.observer.copies.reach import CopyReach
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest, copies_of
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey
from coalmine_router.table import RouteTable
from tests.doubles.backends_rig import reaching
from tests.doubles.reports import router_config, settings
from tests.doubles.running import running
from tests.doubles.waiting import eventually

Answered = list[tuple[ObservedRequest, CopyCall]]


class _Calls(list[CopyCall]):
    """The calls of one request, which also come to a list of all requests' calls."""

    def __init__(self, observed: ObservedRequest, answered: Answered) -> None:
        super().__init__()
        self._observed = observed
        self._answered = answered

    def append(self, call: CopyCall) -> None:
        super().append(call)
        self._answered.append((self._observed, call))


@dataclass
class Sent:
    """A request, the copies that were drawn for it, and what is done once all have ended."""

    observed: ObservedRequest
    drawn: list[Copy]
    ended: "asyncio.Future[None] | None"

    def check(self) -> None:
        """Fail where what is awaited is not done exactly when no copy waits."""
        assert (self.ended is None or self.ended.done()) == (not self.observed.waiting)

    @property
    def given_up(self) -> int:
        return len(self.drawn) - self.observed.waiting - len(self.observed.calls)


@dataclass
class Copying:
    """Copies, the table they are offered by, and what was said of them."""

    copies: CopySender
    table: RouteTable
    backends: Backends
    sent: list[Sent] = field(default_factory=list)
    # In the order in which they were answered.
    answered: Answered = field(default_factory=list)

    def offer(self, *reports: pb.Report) -> None:
        """Offer all copies that the reports were drawn for."""
        for report in reports:
            observed = ObservedRequest.of(report)
            observed.calls = _Calls(observed, self.answered)
            ended = self.copies.send(observed, self.table)
            self.sent.append(Sent(observed, list(copies_of(report)), ended))

    @property
    def given_up(self) -> list[tuple[ObservedRequest, Copy]]:
        """The copies that were not answered, of requests of which none waits."""
        called = {(observed, call.copy) for observed, call in self.answered}
        drawn = (
            (each.observed, copy)
            for each in self.sent
            if not each.observed.waiting
            for copy in each.drawn
        )
        return [each for each in drawn if each not in called]

    @property
    def calls(self) -> list[CopyCall]:
        """The calls that came to an end, in that order."""
        return [call for _, call in self.answered]

    @property
    def codes(self) -> list[str]:
        """How they ended."""
        return [call.answer.code for call in self.calls]

    def totals(self, variant: str = "canary", role: str = "shadow") -> CopyCounts:
        """Return the counts of a queue; of none, where it never was."""
        found = dict(self.copies.totals())
        return found.get(CopyQueueKey("digits", role, variant), CopyCounts())

    def dropped(self, variant: str = "canary", role: str = "shadow") -> dict[str, int]:
        """Return what was given up, by reason."""
        return dict(self.totals(variant, role).dropped)

    def check(self) -> None:
        """Fail where the counts don't add up, or are not what was said."""
        queues = [totals for _, totals in self.copies.totals()]
        for queue in queues:
            gone = queue.dropped.total() + queue.waiting + queue.under_way + queue.sent
            assert queue.offered == gone, queue
            assert queue.sent >= queue.compared + queue.uncompared, queue
            assert min(queue.waiting, queue.under_way, queue.sent) >= 0, queue
        assert sum(each.offered for each in queues) == sum(len(each.drawn) for each in self.sent)
        assert sum(each.sent for each in queues) == len(self.answered)
        assert sum(each.dropped.total() for each in queues) == self._given_up
        for each in self.sent:
            each.check()

    async def ended(self, copies: int) -> None:
        """Return once so many copies were answered or given up."""
        await eventually(lambda: len(self.answered) + self._given_up >= copies)

    async def all_ended(self) -> None:
        """Return once what is awaited of each request is done."""
        for each in self.sent:
            if each.ended is not None:
                await each.ended

    @property
    def _given_up(self) -> int:
        return sum(each.given_up for each in self.sent)


def copied_config(
    *, shares: Sequence[str] = ("canary",), route: dict[str, Any] | None = None, **backends: str
) -> RouterConfig:
    """Return the route `digits`, copied to the variants in `shares` but where `route` says else."""
    shadows = dict.fromkeys(shares, "100%")
    return router_config(route={"shadows": shadows, **(route or {})}, **backends)


@asynccontextmanager
async def copying(
    config: RouterConfig,
    *,
    limits: CopyLimits | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    **reached: Any,
) -> AsyncIterator[Copying]:
    """Run copies until the block ends; then all counts add up.

    It begins once it is known of each backend whether it can be called; `reached`: as `reaching`.
    """
    moment = clock or SystemClock()
    given = {"rules": EJECTION, "is_lenient": True, "may_lose_stable": True, **reached}
    async with reaching(config.table(), clock=moment, **given) as backends:
        await backends.wait_until_warm(10.0)
        copies = CopySender(
            reach=CopyReach(backends, moment),
            settings=settings_by_copy(settings(config)),
            clock=moment,
            rng=rng or random.Random(7),
            limits=limits,
        )
        rig = Copying(copies, config.table(), backends)
        async with running(copies.run()):
            yield rig
        rig.check()


_numbers = itertools.count(1)


def observed_of(size: int = 8) -> ObservedRequest:
    """Return an observed request whose bodies have that size, of which one copy waits."""
    trace_id = next(_numbers).to_bytes(16, "big")
    return ObservedRequest(pb.Report(trace_id=trace_id), b"x" * (size // 2), b"y" * (size // 2), 1)

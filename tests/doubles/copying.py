"""Copies that run for real, on a table that a test makes, with what became of each written down."""

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
from coalmine_router.observer.copies.copy_limits import EJECTION, CopyLimits, configured
from coalmine_router.observer.copies.copy_sender import CopySender
from coalmine_router.observer.copies.reach import CopyReach
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest, copies_of
from coalmine_router.observer.totals import LaneKey, LaneTotals
from coalmine_router.table import RouteTable
from tests.doubles.backends_rig import reaching
from tests.doubles.reports import router_config, settings
from tests.doubles.running import running
from tests.doubles.waiting import eventually


@dataclass
class Copying:
    """Copies, the table they are offered by, and what was said of them."""

    copies: CopySender
    table: RouteTable
    backends: Backends
    offered: int = 0
    answered: list[tuple[ObservedRequest, CopyCall]] = field(default_factory=list)
    given_up: list[tuple[ObservedRequest, Copy]] = field(default_factory=list)

    def offer(self, *reports: pb.Report) -> None:
        """Offer all copies that the reports were drawn for."""
        for report in reports:
            exchange = ObservedRequest.of(report)
            for copy in copies_of(report):
                self.offered += 1
                self.copies.offer(exchange, copy, self.table)

    @property
    def calls(self) -> list[CopyCall]:
        """The calls that came to an end, in that order."""
        return [call for _, call in self.answered]

    @property
    def codes(self) -> list[str]:
        """How they ended."""
        return [call.answer.code for call in self.calls]

    def totals(self, variant: str = "canary", role: str = "shadow") -> LaneTotals:
        """Return the counts of a queue; of none, where it never was."""
        found = dict(self.copies.totals())
        return found.get(LaneKey("digits", role, variant), LaneTotals())

    def dropped(self, variant: str = "canary", role: str = "shadow") -> dict[str, int]:
        """Return what was given up, by reason."""
        return dict(self.totals(variant, role).dropped)

    def check(self) -> None:
        """Fail where the counts don't add up, or are not what was said."""
        queues = [totals for _, totals in self.copies.totals()]
        for each in queues:
            gone = each.dropped.total() + each.waiting + each.under_way + each.sent
            assert each.offered == gone, each
            assert each.sent >= each.compared + each.uncompared, each
            assert min(each.waiting, each.under_way, each.sent) >= 0, each
        assert sum(each.offered for each in queues) == self.offered
        assert sum(each.sent for each in queues) == len(self.answered)
        assert sum(each.dropped.total() for each in queues) == len(self.given_up)

    async def ended(self, copies: int) -> None:
        """Return once so many copies were answered or given up."""
        await eventually(lambda: len(self.answered) + len(self.given_up) >= copies)


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
        answered: list[tuple[ObservedRequest, CopyCall]] = []
        given_up: list[tuple[ObservedRequest, Copy]] = []
        copies = CopySender(
            reach=CopyReach(backends, moment),
            settings=configured(settings(config)),
            answered=lambda *one: answered.append(one),
            given_up=lambda *one: given_up.append(one),
            clock=moment,
            rng=rng or random.Random(7),
            limits=limits,
        )
        rig = Copying(copies, config.table(), backends, answered=answered, given_up=given_up)
        async with running(copies.run()):
            yield rig
        rig.check()


_numbers = itertools.count(1)


def exchange_of(size: int = 8) -> ObservedRequest:
    """Return an exchange whose bodies have that size, of which one copy waits."""
    trace_id = next(_numbers).to_bytes(16, "big")
    return ObservedRequest(pb.Report(trace_id=trace_id), b"x" * (size // 2), b"y" * (size // 2), 1)

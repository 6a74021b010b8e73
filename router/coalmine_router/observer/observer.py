"""The observer: from a report, over its shadows and comparisons, to evidence, records and spans."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import CollectorRegistry

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine_router.channels import Channels
from coalmine_router.config.compare import CompareConfig
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.compare import Answer, Comparison, compare
from coalmine_router.observer.counting import count
from coalmine_router.observer.evidence import Evidence, Pair
from coalmine_router.observer.exchange import Compared, Exchange, ShadowCall
from coalmine_router.observer.intake import Intake
from coalmine_router.observer.keep import is_kept
from coalmine_router.observer.metrics import RouterMetrics
from coalmine_router.observer.mismatches import Mismatches
from coalmine_router.observer.records import mismatch_record
from coalmine_router.observer.route_status import (
    comparison_counts,
    report_counts,
    shadow_counts,
    tell_traffic,
)
from coalmine_router.observer.shadow import ShadowLimits, Shadows
from coalmine_router.observer.spans import tree
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.observer.traffic import Traffic
from coalmine_router.table import Route, RouteTable

_log = structlog.get_logger(__name__)

# Below, a hop to a thread costs more than the comparison; above, the control API would wait.
_ON_LOOP_BYTES_MAX: Final = 64 * 1024


class Spans(Protocol):
    """Where kept spans go; CountedSpans is one."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a finished span."""
        ...

    def totals(self) -> Mapping[str, int]:
        """Return what became of spans, by result."""
        ...


class NoSpans:
    """For a process whose spans nobody reads."""

    def on_end(self, span: ReadableSpan) -> None:
        """Forget it."""

    def totals(self) -> Mapping[str, int]:
        """Return nothing."""
        return {}


class Observer:
    """What app.py builds: reports come in by `servicer`, and everything learnt goes out from here.

    `routes` are the file's settings by route name. Channels and store are closed by whoever made
    them, after `run` has ended.
    """

    def __init__(
        self,
        *,
        tables: Callable[[], RouteTable],
        routes: Mapping[str, RouteConfig],
        channels: Channels,
        spans: Spans | None,
        resource: Resource,
        registry: CollectorRegistry,
        store: Mismatches,
        clock: Clock,
        rng: random.Random,
        limits: ShadowLimits | None = None,
    ) -> None:
        self._tables = tables
        self._routes = routes
        self._spans = spans or NoSpans()
        self._resource = resource
        self._store = store
        self._clock = clock
        self._rng = rng
        self._since_ns = clock.wall_ns()
        self._traffic = Traffic()
        self._evidence = Evidence()
        self._reports = ReportTotals()
        self._intake = Intake(self._reports, self.observe)
        self._shadows = Shadows(
            channels=channels,
            clock=clock,
            rng=rng,
            answered=self._answered,
            given_up=self._settle,
            limits=limits or ShadowLimits(),
        )
        registry.register(
            RouterMetrics(
                traffic=self._traffic,
                evidence=self._evidence,
                reports=self._reports,
                streams_turned_away=lambda: self._intake.turned_away,
                shadows=self._shadows.totals,
                spans=self._spans.totals,
                mismatches=store.totals,
            )
        )

    async def run(self) -> None:
        """Call shadows until cancelled."""
        await self._shadows.run()

    async def settled(self) -> None:
        """Return once every report that came in has been learnt from."""
        await self._shadows.settled()

    def servicer(self) -> pb_grpc.ReportsServicer:
        """Return the service that proxies send their reports to."""
        return self._intake

    def end_streams(self) -> None:
        """End the proxies' streams, so that a graceful stop needn't wait for them."""
        self._intake.end_streams()

    # ------------------------------------------------------------ the way of a report

    def observe(self, report: pb.Report) -> None:
        """Count a report, and send its copies on their way; returns without waiting for them."""
        table = self._tables()
        count(report, table, self._traffic)
        exchange = Exchange.of(report)
        for name in exchange.report.shadows:
            self._shadows.offer(exchange, name, table)
        if not exchange.report.shadows:
            self._finish(exchange)

    async def _answered(self, exchange: Exchange, route: Route, call: ShadowCall) -> None:
        try:
            compared = await self._compared(exchange, route, call)
            exchange.shadowed.append((call, compared))
            self._learn(exchange, call, compared)
        finally:
            self._settle(exchange)

    def _learn(self, exchange: Exchange, call: ShadowCall, compared: Compared) -> None:
        pair = Pair(exchange.report.route, exchange.report.variant, call.variant)
        self._evidence.add(pair, compared.comparison)
        if compared.comparison.outcome == "mismatch":
            record_id = f"{self._rng.getrandbits(64):016x}"
            self._store.offer(mismatch_record(record_id, exchange, call, compared))

    def _settle(self, exchange: Exchange) -> None:
        """Note that one copy has come to its end."""
        exchange.waiting -= 1
        if exchange.waiting == 0:
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        report = exchange.report
        settings = self._routes.get(report.route)
        slow = settings.gates.slow if settings else None
        if is_kept(
            is_sampled=report.sampled,
            # Of each call: a request that fell back is worth a look.
            is_ok=not any((report.status_code, *(each.status_code for each in report.attempts))),
            duration_ns=report.duration_ns,
            slow_over_ns=slow.over if slow else None,
            outcomes=[compared.comparison.outcome for _, compared in exchange.shadowed],
        ):
            for span in tree(exchange, self._resource):
                self._spans.on_end(span)

    # ------------------------------------------------------------ comparing

    async def _compared(self, exchange: Exchange, route: Route, call: ShadowCall) -> Compared:
        settings = self._routes.get(route.name)
        rules = settings.compare if settings else CompareConfig()
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        comparison = await _compare(Answer(exchange.response), call.answer, rules)
        return Compared(
            comparison,
            span_id=self._rng.getrandbits(64).to_bytes(8, "big"),
            started_ns=started_ns,
            duration_ns=self._clock.monotonic_ns() - began_ns,
        )

    # ------------------------------------------------------------ what operators ask

    def describe(self, route: Route, status: pb.RouteStatus) -> None:
        """Fill in what was counted of a route since this process began."""
        status.counting_since_ns = self._since_ns
        status.reports.CopyFrom(report_counts(self._reports))
        for variant in status.variants:
            tell_traffic(variant, self._traffic.variant(route.name, variant.name))
        status.turned_away.update(self._traffic.refusals_of(route.name))
        status.comparisons.extend(
            comparison_counts(pair, found) for pair, found in self._evidence.pairs(route.name)
        )
        status.shadows.extend(
            shadow_counts(variant, totals)
            for (name, variant), totals in self._shadows.totals()
            if name == route.name
        )

    async def mismatches(self, route: str, output: str, limit: int) -> list[pb.Mismatch]:
        """Return kept mismatches, newest first, without bodies; with `output`, where it differs."""
        return await self._store.newest(route, output, limit)

    async def mismatch(self, route: str, record_id: str) -> pb.Mismatch:
        """Return a kept mismatch with its bodies. Raises NotFound."""
        return await self._store.get(route, record_id)


async def _compare(reference: Answer, candidate: Answer, rules: CompareConfig) -> Comparison:
    if len(reference.body) + len(candidate.body) <= _ON_LOOP_BYTES_MAX:
        return compare(reference, candidate, rules)
    return await asyncio.to_thread(compare, reference, candidate, rules)

"""The observer: counts each report, and follows the request that it is of to its end."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.compare_answers import AnswerComparer
from coalmine_router.observer.copies.copy_sender import CopySender
from coalmine_router.observer.counting import count
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence_intake import EvidenceIntake, segment_of
from coalmine_router.observer.observed_request import ObservedRequest
from coalmine_router.observer.order import InOrder
from coalmine_router.observer.output.span_writer import SpanWriter
from coalmine_router.observer.route_settings import UNSET, RouteSettings
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)


class Observer:
    """The way of a report is `observe`, and from its copies to its verdict `_follow`: see ADR 9."""

    def __init__(
        self,
        *,
        tables: Callable[[], RouteTable],
        routes: Mapping[str, RouteSettings],
        traffic: TrafficCounts,
        copies: CopySender,
        comparer: AnswerComparer,
        evidence: EvidenceIntake,
        store: EvidenceStore,
        spans: SpanWriter,
    ) -> None:
        self._tables = tables
        self._routes = routes
        self._traffic = traffic
        self._copies = copies
        self._comparer = comparer
        self._evidence = evidence
        self._store = store
        self._spans = spans
        self._tasks: asyncio.TaskGroup | None = None
        self._orders: dict[str, InOrder[ObservedRequest]] = {}
        # The requests that wait for something, in the order of their reports.
        self._followed: dict[ObservedRequest, None] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Follow requests until cancelled; then conclude from each what is known of it by then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copies.run())
                self._tasks = tasks
                try:
                    await asyncio.Event().wait()
                finally:
                    self._tasks = None  # a group that ends takes no more tasks
        finally:
            followed = list(self._followed)
            for observed in followed:
                if observed.turn is not None:
                    self._learn_in_order(observed)
            self._tell_verdicts(followed)

    async def wait_until_idle(self) -> None:
        """Return once every report that came in has been learnt from."""
        await self._idle.wait()

    # ------------------------------------------------------------ the way of a report

    def observe(self, report: pb.Report) -> None:
        """Count a report and queue its copies; returns without waiting for them."""
        table = self._tables()
        count(report, table, self._traffic)
        observed = ObservedRequest.of(report, table.by_route.get(report.route))
        if observed.route is not None:
            observed.segment = segment_of(observed.report, self._settings(observed).segment_key)
            observed.changes += self._evidence.add_assignment(observed.report, observed.route)
        copies = self._copies.send(observed, table) if observed.waiting else None
        if copies is not None:
            observed.turn = self._order(observed).announce()
        else:
            self._spans.write_request(observed, self._settings(observed))
        if copies is None and not observed.changes:
            return  # most have nothing to wait for, and cost no task
        self._followed[observed] = None
        self._idle.clear()
        if self._tasks is not None:
            self._tasks.create_task(self._follow(observed, copies))
        elif copies is None:
            self._tell_verdicts([observed])

    async def _follow(
        self, observed: ObservedRequest, copies: "asyncio.Future[None] | None"
    ) -> None:
        """Compare the answers, learn from them in the route's order, save, and tell of verdicts."""
        due = [observed]
        try:
            if copies is not None:
                await copies
                try:
                    if observed.calls:
                        await self._comparer.compare(observed)
                except Exception:  # noqa: BLE001 - one odd request must not end the others
                    _log.exception("exchange_not_compared")
                due = self._learn_in_order(observed)
            if any(each.changes for each in due):
                await self._store.save()
        except Exception:  # noqa: BLE001 - one odd request must not end the others
            _log.exception("exchange_not_told")
        self._tell_verdicts(due)

    def _learn_in_order(self, observed: ObservedRequest) -> list[ObservedRequest]:
        """Learn from a request and those that waited for it; returns them, none if it must wait."""
        turn, observed.turn = observed.turn, None
        assert turn is not None  # noqa: S101 - whoever waited for copies has one
        self._copies.count_compared(observed)
        observed.drop_bodies()
        due = self._order(observed).mark_ready(turn, observed)
        for each in due:
            try:
                each.changes += self._evidence.add_comparisons(each)
                self._spans.write_request(each, self._settings(each))
            except Exception:  # noqa: BLE001 - one odd request must not cost those behind it
                _log.exception("exchange_not_told", route=each.report.route)
        return due

    def _tell_verdicts(self, due: Sequence[ObservedRequest]) -> None:
        """Tell of verdicts, which are on disk by then wherever the disk takes them."""
        for each in due:
            self._followed.pop(each, None)
            try:
                for change in each.changes:
                    self._spans.write_verdict(change)
            except Exception:  # noqa: BLE001 - one odd request must not end the others
                _log.exception("exchange_not_told")
        if not self._followed:
            self._idle.set()

    # ------------------------------------------------------------ beside it

    @property
    def out_of_turn(self) -> int:
        """How many requests were learnt from after others that were reported later."""
        return sum(each.out_of_turn for each in self._orders.values())

    def _order(self, observed: ObservedRequest) -> InOrder[ObservedRequest]:
        """Return the order of a route; those of names that the table doesn't have share one."""
        name = observed.route.name if observed.route is not None else ""
        order = self._orders.get(name)
        if order is None:
            order = self._orders[name] = InOrder()
        return order

    def _settings(self, observed: ObservedRequest) -> RouteSettings:
        return self._routes.get(observed.report.route, UNSET)

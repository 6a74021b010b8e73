"""The observer: follows each report over its copies and comparisons to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.compare_answers import AnswerComparison
from coalmine_router.observer.copies.copy_sender import Answered, CopySender, GivenUp
from coalmine_router.observer.counting import count
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence_intake import EvidenceIntake, segment_of
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest, copies_of
from coalmine_router.observer.order import InOrder
from coalmine_router.observer.output.span_writer import SpanWriter
from coalmine_router.observer.route_settings import UNSET, RouteSettings
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

# Makes the part that sends copies; it is handed what to tell of each.
MakesCopies = Callable[[Answered, GivenUp], CopySender]


class Observer:
    """Counts a report, has its copies sent, and once they are back, concludes from them.

    Of a report, in order: `observe`, `_answered` for each copy, `_concluded`; and when those before
    it on its route have come so far, `_learnt`, `_finish`.
    """

    def __init__(
        self,
        *,
        tables: Callable[[], RouteTable],
        routes: Mapping[str, RouteSettings],
        traffic: TrafficCounts,
        learning: EvidenceIntake,
        copies: MakesCopies,
        concluding: AnswerComparison,
        store: EvidenceStore,
        teller: SpanWriter,
    ) -> None:
        self._tables = tables
        self._routes = routes
        self._traffic = traffic
        self._learning = learning
        self.copies = copies(self._answered, self._given_up)
        self._concluding = concluding
        self._store = store
        self._teller = teller
        self._tasks: asyncio.TaskGroup | None = None
        self._orders: dict[str, InOrder[ObservedRequest]] = {}
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Send copies and conclude from them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.copies.run())
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None  # a group that ends no longer cancels what is begun in it

    async def settled(self) -> None:
        """Return once every report that came in has been learnt from."""
        await self.copies.settled()
        await self._idle.wait()

    # ------------------------------------------------------------ the way of a report

    def observe(self, report: pb.Report) -> None:
        """Count a report, and send its copies on their way; returns without waiting for them."""
        table = self._tables()
        count(report, table, self._traffic)
        exchange = ObservedRequest.of(report, table.by_route.get(report.route))
        if exchange.route is not None:
            exchange.segment = segment_of(exchange.report, self._settings(exchange).segment_key)
            exchange.changes += self._learning.assigned(exchange.report, exchange.route)
        if not exchange.waiting:
            self._finish(exchange)
            return
        exchange.turn = self._order(exchange).announce()
        for copy in copies_of(exchange.report):
            self.copies.offer(exchange, copy, table)

    def _answered(self, exchange: ObservedRequest, call: CopyCall) -> None:
        exchange.calls.append(call)
        self._settle(exchange)

    def _given_up(self, exchange: ObservedRequest, _copy: Copy) -> None:
        self._settle(exchange)

    def _settle(self, exchange: ObservedRequest) -> None:
        """Note that one copy has come to its end."""
        exchange.waiting -= 1
        if exchange.waiting:
            return
        concluded = partial(self._concluded, exchange)
        if exchange.calls and self._tasks is not None:
            conclude = partial(self._concluding.conclude, exchange)
            self._begin(self._tasks, conclude, concluded)
        else:
            concluded()

    def _concluded(self, exchange: ObservedRequest) -> None:
        counted = self.copies.compared if exchange.found else self.copies.uncompared
        for call in exchange.calls:
            counted(exchange.report.route, call.copy)
        exchange.let_go()
        turn = exchange.turn
        assert turn is not None  # noqa: S101 - whoever waited for copies has one
        for each in self._order(exchange).ready(turn, exchange):
            self._learnt(each)

    def _learnt(self, exchange: ObservedRequest) -> None:
        exchange.turn = None
        try:
            exchange.changes += self._learning.learn(exchange)
            self._finish(exchange)
        except Exception:  # noqa: BLE001 - one odd exchange must not cost those behind it
            _log.exception("exchange_not_told", route=exchange.report.route)

    def _finish(self, exchange: ObservedRequest) -> None:
        self._teller.write_request(exchange, self._settings(exchange))
        if not exchange.changes:
            return
        tell = partial(self._tell, exchange)
        if self._tasks is not None:
            self._begin(self._tasks, self._store.save, tell)
        else:
            tell()

    def _tell(self, exchange: ObservedRequest) -> None:
        """Tell of verdicts, which are on disk by then wherever the disk takes them."""
        for change in exchange.changes:
            self._teller.write_verdict(change)

    # ------------------------------------------------------------ beside it

    @property
    def out_of_turn(self) -> int:
        """How many exchanges were learnt from after others that were reported later."""
        return sum(each.out_of_turn for each in self._orders.values())

    def _order(self, exchange: ObservedRequest) -> InOrder[ObservedRequest]:
        """Return the order of a route; those of names that the table doesn't have share one."""
        name = exchange.route.name if exchange.route is not None else ""
        return self._orders.setdefault(name, InOrder())

    def _settings(self, exchange: ObservedRequest) -> RouteSettings:
        return self._routes.get(exchange.report.route, UNSET)

    def _begin(
        self,
        tasks: asyncio.TaskGroup,
        work: Callable[[], Awaitable[object]],
        then: Callable[[], None],
    ) -> None:
        """Do some work, `then` the rest: that also where the end comes before the work began."""
        self._under_way += 1
        self._idle.clear()
        tasks.create_task(_tried(work)).add_done_callback(partial(self._ended, then))

    def _ended(self, then: Callable[[], None], _task: "asyncio.Task[None]") -> None:
        try:
            then()
        except Exception:  # noqa: BLE001 - one odd exchange must not end the others
            _log.exception("exchange_not_told")
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


async def _tried(work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except Exception:  # noqa: BLE001 - one odd exchange must not end the others
        _log.exception("exchange_not_compared")

"""Sends copies: bounded and counted for each lane, so that one that hangs disturbs nobody."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import structlog

from coalmine.clock import Clock
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.copies.call import CopyCaller
from coalmine_router.observer.copies.copy_limits import CopyLimits, Settings
from coalmine_router.observer.copies.copy_queue import CopyQueue, Queued, is_wanted
from coalmine_router.observer.copies.copy_totals import CopyTotals
from coalmine_router.observer.copies.reach import CopyReach
from coalmine_router.observer.copies.refusal import refusal
from coalmine_router.observer.copies.room import Room
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest
from coalmine_router.observer.totals import LaneKey, LaneTotals
from coalmine_router.table import Route, RouteTable

_log = structlog.get_logger(__name__)

Answered = Callable[[ObservedRequest, CopyCall], None]
GivenUp = Callable[[ObservedRequest, Copy], None]


class CopySender:
    """Every copy offered ends in exactly one of `answered` and `given_up`; both return soon.

    `reach` knows whom they may go to. `settings` are looked up at each call: they may change.
    """

    def __init__(
        self,
        *,
        reach: CopyReach,
        settings: Settings,
        answered: Answered,
        given_up: GivenUp,
        clock: Clock,
        rng: random.Random,
        limits: CopyLimits | None = None,
    ) -> None:
        self._reach = reach
        self._settings = settings
        self._answered = answered
        self._given_up = given_up
        self._clock = clock
        self._rng = rng
        self._limits = limits or CopyLimits()
        self._room = Room(self._limits.room_bytes_max)
        self._ledger = CopyTotals()
        self._lanes: dict[LaneKey, CopyQueue] = {}
        self._callers: dict[CopyQueue, CopyCaller] = {}
        self._table: RouteTable | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._workers = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Serve until cancelled; then give up what waits and what is under way."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._open(tasks)
        finally:
            self._give_up_all()

    async def settled(self) -> None:
        """Return once no copy waits or is under way."""
        await self._idle.wait()

    def totals(self) -> Iterator[tuple[LaneKey, LaneTotals]]:
        """Return the counts of all lanes that ever were; those of unknown names under ""."""
        return self._ledger.entries()

    def compared(self, route: str, copy: Copy) -> None:
        """Count a copy of those answered that came to a comparison."""
        self._ledger.of(LaneKey(route, copy.role, copy.variant)).compared += 1

    def uncompared(self, route: str, copy: Copy) -> None:
        """Count a copy of those answered that came to none."""
        self._ledger.of(LaneKey(route, copy.role, copy.variant)).uncompared += 1

    async def _open(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        try:
            await asyncio.Event().wait()
        finally:
            self._tasks = None  # a group that ends no longer cancels what is begun in it

    # ------------------------------------------------------------ what is offered

    def offer(self, exchange: ObservedRequest, copy: Copy, table: RouteTable) -> None:
        """Queue a copy for its variant, or give it up and count why."""
        self.follow(table)
        route = table.by_route.get(exchange.report.route)
        if route is None or copy.variant not in route.by_name:
            nameless = self._ledger.nameless(copy.role)
            nameless.offered += 1
            nameless.drop("unknown_variant")
            self._tell_given_up(exchange, copy)
            return
        self._offer(exchange, copy, route)

    def follow(self, table: RouteTable) -> None:
        """Let go of the lanes that a table, new since the last one, draws no copies for."""
        if table is not self._table:
            self._table = table
            for lane in list(self._lanes.values()):
                self._let_go(lane)

    def _offer(self, exchange: ObservedRequest, copy: Copy, route: Route) -> None:
        lane = self._lane(LaneKey(route.name, copy.role, copy.variant))
        now_ns = self._clock.monotonic_ns()
        reason = refusal(exchange.report, exchange.request, route) or self._full(lane, exchange)
        if reason:
            lane.refuse(reason)
            self._let_go(lane)
            self._tell_given_up(exchange, copy)
            return
        self._room.enter(id(exchange), exchange.size_bytes)
        lane.put(Queued(exchange, copy, route, route.by_name[copy.variant], now_ns))
        self._employ(lane, self._settings(route.name, copy).concurrency)

    def _full(self, lane: CopyQueue, exchange: ObservedRequest) -> str:
        if self._tasks is None:
            return "stopping"
        refused = self._reach.refusal(lane.key.route, lane.key.variant)
        lane.note_circuit(refused)
        reason = lane.refusal(exchange.size_bytes) or refused
        if not reason and not self._room.has(id(exchange), exchange.size_bytes):
            return "no_room"
        return reason

    # ------------------------------------------------------------ lanes

    def _lane(self, key: LaneKey) -> CopyQueue:
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = CopyQueue(key, self._ledger.begin(key), self._limits)
            self._callers[found] = CopyCaller(
                clock=self._clock,
                rng=self._rng,
                answer_bytes_max=self._limits.answer_bytes_max,
            )
        return found

    def _let_go(self, lane: CopyQueue) -> None:
        """Let go of a lane that is idle, and that nothing more is drawn for."""
        if self._table is None or not lane.is_idle or is_wanted(lane.key, self._table):
            return
        self._ledger.end(lane.key)
        del self._lanes[lane.key], self._callers[lane]

    def _employ(self, lane: CopyQueue, workers_max: int) -> None:
        if self._tasks is not None and lane.workers < workers_max:
            lane.workers += 1
            self._workers += 1
            self._idle.clear()
            self._tasks.create_task(self._work(lane))

    def _give_up_all(self) -> None:
        for lane in list(self._lanes.values()):
            while not lane.is_empty:
                self._settle(lane, lane.take(), "stopping")
        self._idle.set()  # workers that never began don't say that they are gone

    # ------------------------------------------------------------ workers

    async def _work(self, lane: CopyQueue) -> None:
        try:
            while not lane.is_empty:
                await self._serve(lane, lane.take())
        finally:
            lane.workers -= 1
            self._workers -= 1
            self._let_go(lane)
            if not self._workers:
                self._idle.set()

    async def _serve(self, lane: CopyQueue, queued: Queued) -> None:
        ended: CopyCall | str = "stopping"
        try:
            ended = await self._ended(lane, queued)
        except Exception:  # noqa: BLE001 - one odd copy must not end the others
            _log.exception("copy_failed", lane=lane.key)
            ended = "not_sent"
        finally:
            self._settle(lane, queued, ended)

    async def _ended(self, lane: CopyQueue, queued: Queued) -> CopyCall | str:
        """Return how a copy was answered, or why it was not sent."""
        if lane.has_expired(queued, self._clock.monotonic_ns()):
            return "expired"
        way = await self._reach.wait(lane.key.route, lane.key.variant)
        lane.note_circuit(way if isinstance(way, str) else "")
        if isinstance(way, str):
            return way
        settings = self._settings(lane.key.route, queued.copy)
        if not lane.take_rate(self._clock.monotonic_ns(), settings.max_rps):
            return "max_rps"
        timeout_ns = min(queued.route.timeout_ns, settings.timeout)
        return await self._callers[lane].call(queued, way, timeout_ns) or "not_sent"

    def _settle(self, lane: CopyQueue, queued: Queued, ended: CopyCall | str) -> None:
        exchange = queued.exchange
        if isinstance(ended, str):
            lane.give_up(queued, ended)
            self._room.leave(id(exchange))
            self._tell_given_up(exchange, queued.copy)
            return
        call = self._kept(exchange, ended)
        lane.sent(queued, call.answer.code)
        self._room.leave(id(exchange))
        try:
            self._answered(exchange, call)
        except Exception:  # noqa: BLE001 - what is learnt of one must not end the others
            _log.exception("copy_not_taken", lane=lane.key)

    def _kept(self, exchange: ObservedRequest, call: CopyCall) -> CopyCall:
        """Return the call; without its answer where that can't wait for the other copies."""
        if self._room.keep(id(exchange), len(call.answer.body)):
            return call
        told = "no room to keep the answer until those of the other copies are there"
        return replace(call, answer=ComparedAnswer(code="RESOURCE_EXHAUSTED", message=told))

    def _tell_given_up(self, exchange: ObservedRequest, copy: Copy) -> None:
        try:
            self._given_up(exchange, copy)
        except Exception:  # noqa: BLE001 - what is learnt of one must not end the others
            _log.exception("copy_not_taken", route=exchange.report.route, role=copy.role)

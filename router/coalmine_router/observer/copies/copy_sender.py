"""Sends copies from bounded queues, one a variant and role: one that hangs disturbs nobody."""

import asyncio
import random
from collections.abc import Iterator
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.copies.call import CopyCaller
from coalmine_router.observer.copies.copy_limits import CopyLimits, CopySettings
from coalmine_router.observer.copies.copy_queue import CopyQueue, Queued, is_wanted
from coalmine_router.observer.copies.copy_totals import CopyTotals
from coalmine_router.observer.copies.reach import CopyReach
from coalmine_router.observer.copies.refusal import refusal
from coalmine_router.observer.copies.room import Room
from coalmine_router.observer.observed_request import (
    Copy,
    CopyCall,
    ObservedRequest,
    copies_of,
)
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey
from coalmine_router.table import Route, RouteTable

_log = structlog.get_logger(__name__)

_NO_ROOM: Final = ComparedAnswer(
    code="RESOURCE_EXHAUSTED",
    message="no room to keep the answer until those of the other copies are there",
)


class CopySender:
    """Every copy ends as a call in its request, or as given up; both are counted.

    `reach` knows whom they may go to. `settings` are looked up at each call: they may change.
    """

    def __init__(
        self,
        *,
        reach: CopyReach,
        settings: CopySettings,
        clock: Clock,
        rng: random.Random,
        limits: CopyLimits | None = None,
    ) -> None:
        self._reach = reach
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._limits = limits or CopyLimits()
        self._room = Room(self._limits.room_bytes_max)
        self._totals = CopyTotals()
        self._queues: dict[CopyQueueKey, CopyQueue] = {}
        self._callers: dict[CopyQueue, CopyCaller] = {}
        self._ended: dict[ObservedRequest, asyncio.Future[None]] = {}
        self._table: RouteTable | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Serve until cancelled; then give up what waits and what is under way."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await asyncio.Event().wait()
                finally:
                    self._tasks = None  # a group that ends takes no more tasks
        finally:
            for queue in list(self._queues.values()):
                while not queue.is_empty:
                    self._end(queue, queue.take(), "stopping")

    def totals(self) -> Iterator[tuple[CopyQueueKey, CopyCounts]]:
        """Return the counts of all queues that ever were; those of unknown names under ""."""
        return self._totals.entries()

    def count_compared(self, observed: ObservedRequest) -> None:
        """Count the calls of a request as compared, or as uncompared where nothing was found."""
        for call in observed.calls:
            key = CopyQueueKey(observed.report.route, call.copy.role, call.copy.variant)
            if observed.results:
                self._totals.of(key).compared += 1
            else:
                self._totals.of(key).uncompared += 1

    # ------------------------------------------------------------ what is offered

    def send(self, observed: ObservedRequest, table: RouteTable) -> "asyncio.Future[None] | None":
        """Queue a request's copies for their variants, or give them up and count why.

        What is returned is done once each copy has come to something; None: none of them waits.
        """
        self.use_table(table)
        route = table.by_route.get(observed.report.route)
        for copy in copies_of(observed.report):
            if not self._queue(observed, copy, route):
                observed.waiting -= 1
        if not observed.waiting:
            return None
        ended = self._ended[observed] = asyncio.get_running_loop().create_future()
        return ended

    def use_table(self, table: RouteTable) -> None:
        """Let go of the queues that a table, new since the last one, draws no copies for."""
        if table is not self._table:
            self._table = table
            for queue in list(self._queues.values()):
                self._let_go(queue)

    def _queue(self, observed: ObservedRequest, copy: Copy, route: Route | None) -> bool:
        """Let a copy wait for its call; return False where it is given up instead."""
        if route is None or copy.variant not in route.by_name:
            self._totals.count_unknown(copy.role)
            return False
        queue = self._open_queue(CopyQueueKey(route.name, copy.role, copy.variant))
        now_ns = self._clock.monotonic_ns()
        reason = refusal(observed.report, observed.request, route) or self._full(queue, observed)
        if reason:
            queue.refuse(reason)
            self._let_go(queue)
            return False
        self._room.enter(id(observed), observed.size_bytes)
        queue.put(Queued(observed, copy, route, route.by_name[copy.variant], now_ns))
        self._employ(queue, self._settings(route.name, copy).concurrency)
        return True

    def _full(self, queue: CopyQueue, observed: ObservedRequest) -> str:
        if self._tasks is None:
            return "stopping"
        refused = self._reach.refusal(queue.key.route, queue.key.variant)
        queue.note_circuit(refused)
        reason = queue.refusal(observed.size_bytes) or refused
        if not reason and not self._room.has(id(observed), observed.size_bytes):
            return "no_room"
        return reason

    # ------------------------------------------------------------ queues and their workers

    def _open_queue(self, key: CopyQueueKey) -> CopyQueue:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = CopyQueue(key, self._totals.begin(key), self._limits)
            self._callers[queue] = CopyCaller(
                clock=self._clock,
                rng=self._rng,
                answer_bytes_max=self._limits.answer_bytes_max,
            )
        return queue

    def _let_go(self, queue: CopyQueue) -> None:
        """Let go of a queue that is idle, and that nothing more is drawn for."""
        if self._table is None or not queue.is_idle or is_wanted(queue.key, self._table):
            return
        self._totals.end(queue.key)
        del self._queues[queue.key], self._callers[queue]

    def _employ(self, queue: CopyQueue, workers_max: int) -> None:
        if self._tasks is not None and queue.workers < workers_max:
            queue.workers += 1
            self._tasks.create_task(self._work(queue))

    async def _work(self, queue: CopyQueue) -> None:
        """Call whom the queue is for with each copy in it; note what comes of each."""
        try:
            while not queue.is_empty:
                queued = queue.take()
                came: CopyCall | str = "stopping"
                try:
                    came = await self._call(queue, queued)
                except Exception:  # noqa: BLE001 - one odd copy must not end the others
                    _log.exception("copy_failed", lane=queue.key)
                    came = "not_sent"
                finally:
                    self._end(queue, queued, came)
        finally:
            queue.workers -= 1
            self._let_go(queue)

    async def _call(self, queue: CopyQueue, queued: Queued) -> CopyCall | str:
        """Return how a copy was answered, or why it was not sent."""
        if queue.has_expired(queued, self._clock.monotonic_ns()):
            return "expired"
        endpoints = await self._reach.wait(queue.key.route, queue.key.variant)
        queue.note_circuit(endpoints if isinstance(endpoints, str) else "")
        if isinstance(endpoints, str):
            return endpoints
        settings = self._settings(queue.key.route, queued.copy)
        if not queue.take_rate(self._clock.monotonic_ns(), settings.max_rps):
            return "max_rps"
        timeout_ns = min(queued.route.timeout_ns, settings.timeout)
        return await self._callers[queue].call(queued, endpoints, timeout_ns) or "not_sent"

    def _end(self, queue: CopyQueue, queued: Queued, came: CopyCall | str) -> None:
        """Note what came of a copy: its call, or why it was given up."""
        observed = queued.observed
        if isinstance(came, str):
            queue.give_up(queued, came)
        else:
            # An answer may find no room to wait for those of the other copies.
            if not self._room.keep(id(observed), len(came.answer.body)):
                came.answer = _NO_ROOM
            queue.count_sent(queued, came.answer.code)
            observed.calls.append(came)
        self._room.leave(id(observed))
        observed.waiting -= 1
        if not observed.waiting:
            ended = self._ended.pop(observed)
            if not ended.done():  # else nobody waits for it any more
                ended.set_result(None)

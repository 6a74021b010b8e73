"""The way of the requests of one model version: into its queue, to its workers, and back."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from coalmine.clock import Clock
from coalmine.errors import DeadlineSpent, Unavailable
from coalmine_server.batching.burst import Burst
from coalmine_server.batching.request_queue import Batch, Pending, QueueLimits, RequestQueue
from coalmine_server.batching.timers import Alarm, Timer
from coalmine_server.figures.statistics import VersionStatistics
from coalmine_server.runtime.execution import Ran, Result
from coalmine_server.signature import Checked
from coalmine_server.spans import Traced

_log = structlog.get_logger(__name__)


# An answer is held back no longer than this while its worker runs the next request.
_HELD_NS: Final = 5_000_000


class Runs(Protocol):
    """Something that runs one burst at a time."""

    def submit(self, burst: Burst, told: Callable[[bool], object]) -> None:
        """Run `burst` elsewhere; call `told` on the loop now and then, at its end with True."""
        ...


class Batcher:
    """Collects requests into batches. Everything here happens on the loop.

    A model that takes one row at a time can't batch, and to hand each request to a worker and back
    would cost more than a small model does. So there workers take from what waits themselves, one
    request after another, and the loop hears of several together.
    """

    def __init__(
        self,
        *,
        label: str,
        limits: QueueLimits,
        workers: Sequence[Runs],
        clock: Clock,
        timer: Timer,
        metrics: VersionStatistics,
    ) -> None:
        self._label = label
        self._limits = limits
        self._idle = list(workers)
        self._bursts: set[Burst] = set()
        self._clock = clock
        self._statistics = metrics
        self._waiting = RequestQueue(label, limits)
        self._due = Alarm(timer, self._dispatch)
        self._expiry = Alarm(timer, self._expire_due)
        self._held = Alarm(timer, self._collect_held)
        self._is_alone = limits.rows_max == 1  # each request, in its batch
        self._emptied = asyncio.Event()
        self._is_closed = False

    @property
    def queue_rows(self) -> int:
        """How many rows wait."""
        return self._waiting.rows

    @property
    def queue_bytes(self) -> int:
        """How much memory the inputs take that wait."""
        return self._waiting.bytes

    def enter(
        self, request: Checked, deadline_ns: int | None, traced: Traced | None = None
    ) -> Pending:
        """Queue a request, and start what is now due. Raises Overloaded or Unavailable."""
        if self._is_closed:
            raise Unavailable(f"{self._label}: is being unloaded")
        now_ns = self._clock.monotonic_ns()
        future = asyncio.get_running_loop().create_future()
        pending = Pending(
            request,
            request.rows,
            request.shape_key,
            request.priority,
            now_ns,
            deadline_ns,
            future,
            traced,
        )
        if deadline_ns is not None and deadline_ns <= now_ns:
            self._expire(pending)
        elif self._runs_at_once(pending):
            self._start((pending,))
        else:
            self._wait(pending)
        return pending

    async def outcome(self, pending: Pending) -> bytes:
        """Return the serialised answer. Raises ModelFailed, DeadlineSpent or Unavailable.

        Cancelled, a request that waits is dropped; one that runs is left to run for its batch.
        """
        try:
            result = await pending.future
        except asyncio.CancelledError:
            self._waiting.leave(pending)
            self._tell_emptied()
            raise
        if isinstance(result, Exception):
            raise result
        return result

    async def drained(self) -> None:
        """Return once nothing waits and nothing runs: never, where a forward never returns."""
        while self._waiting or self._bursts:
            self._emptied.clear()
            await self._emptied.wait()

    def close(self) -> None:
        """Take no more, and turn away what waits."""
        self._is_closed = True
        for pending in self._waiting.leave_all():
            _settle(pending.future, Unavailable(f"{self._label}: is being unloaded"))
        self._due.off()
        self._expiry.off()
        self._tell_emptied()

    def _tell_emptied(self) -> None:
        if not self._waiting and not self._bursts:
            self._emptied.set()

    # ------------------------------------------------------------ in and out of the queue

    def _runs_at_once(self, pending: Pending) -> bool:
        # What waits while a worker is idle isn't due; and it may be of the same shape, thus first.
        limits = self._limits
        is_due = not limits.max_delay_ns or pending.rows == limits.rows_max
        return bool(self._idle) and is_due and not self._waiting and not self._is_alone

    def _wait(self, pending: Pending) -> None:
        fills_batch = self._waiting.admit(pending, unoccupied=self._unoccupied())
        if pending.deadline_ns is not None:
            self._expiry.ring_by(pending.deadline_ns)
        if not self._idle:
            return  # whichever worker is done first looks again
        if fills_batch:
            self._dispatch()
        else:
            self._due.ring_by(pending.arrived_ns + self._limits.max_delay_ns)

    def _unoccupied(self) -> int:
        """Return how many workers will take a request from what waits, and have none yet."""
        if not self._is_alone:
            return 0
        return len(self._idle) + sum(not each.has_begun for each in self._bursts)

    def _expire_due(self) -> None:
        expired, next_ns = self._waiting.leave_expired(self._clock.monotonic_ns())
        for pending in expired:
            self._expire(pending)
        if next_ns is not None:
            self._expiry.ring_by(next_ns)
        self._tell_emptied()

    def _expire(self, pending: Pending) -> None:
        waited_ms = (self._clock.monotonic_ns() - pending.arrived_ns) // 1_000_000
        _settle(
            pending.future,
            DeadlineSpent(f"{self._label}: the deadline passed in the queue, after {waited_ms} ms"),
        )

    # ------------------------------------------------------------ to the workers and back

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            if self._is_alone:
                self._submit(Burst.of_waiting(self._waiting, self._clock))
                return  # it may be all that one worker needs to be woken for
            taken = self._waiting.take(self._clock.monotonic_ns())
            for pending in taken.expired:
                self._expire(pending)
            # One that was cancelled a moment ago may not have been taken out of the queue yet.
            wanted = [each for each in taken.batch if not each.future.done()]
            if wanted:
                self._start(wanted)
            if taken.look_again_ns is not None:
                self._due.ring_by(taken.look_again_ns)
                return
        self._tell_emptied()

    def _start(self, requests: Sequence[Pending]) -> None:
        self._submit(Burst.of_batch(requests, self._clock))

    def _submit(self, burst: Burst) -> None:
        worker = self._idle.pop()
        self._bursts.add(burst)
        if self._is_alone:
            self._held.ring_by(burst.told_ns + _HELD_NS)
        worker.submit(burst, partial(self._hear, worker, burst))

    def _hear(self, worker: Runs, burst: Burst, is_over: bool) -> None:  # noqa: FBT001 - a callback's
        self._collect(burst)
        if is_over:
            self._bursts.discard(burst)
            self._idle.append(worker)
            if self._waiting and self._is_alone:
                self._expire_due()  # a worker stops at a request that has expired
            self._dispatch()
        else:
            burst.told_ns = self._clock.monotonic_ns()
            self._held.ring_by(burst.told_ns + _HELD_NS)

    def _collect_held(self) -> None:
        """Look for answers behind a forward that takes long: their worker can't tell of them."""
        now_ns = self._clock.monotonic_ns()
        for burst in self._bursts:
            self._collect(burst)
            if burst.told_ns + _HELD_NS > now_ns:
                self._held.ring_by(burst.told_ns + _HELD_NS)

    def _collect(self, burst: Burst) -> None:
        for batch, requests, ran in burst.collect():
            self._conclude(batch, requests, ran)

    def _conclude(self, batch: Batch, requests: Sequence[Pending], ran: Ran) -> None:
        batch.started_ns, batch.ended_ns = ran.started_ns, ran.ended_ns
        rows = 0
        waited_ns: list[int] = []
        for pending, result in zip(requests, ran.results, strict=True):
            if isinstance(result, Exception):
                self._tell_unheard(pending, result)
            else:
                rows += pending.rows
                waited_ns.append(ran.started_ns - pending.arrived_ns)
            _settle(pending.future, result)
        if rows:
            self._count(rows, waited_ns, ran)

    def _count(self, rows: int, waited_ns: Sequence[int], ran: Ran) -> None:
        self._statistics.executed(
            rows,
            waited_ns,
            input_ns=ran.infer_ns - ran.started_ns,
            infer_ns=ran.output_ns - ran.infer_ns,
            output_ns=ran.ended_ns - ran.output_ns,
            ended_ms=self._clock.wall_ns() // 1_000_000,
        )

    def _tell_unheard(self, pending: Pending, error: Exception) -> None:
        if pending.future.done():  # nobody is left to answer, thus to log it with its trace
            _log.warning("model_failed", label=self._label, exc_info=error.__cause__)


def _settle(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():  # cancelled: nobody waits for it
        future.set_result(result)

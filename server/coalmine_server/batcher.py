"""The bounded queue of one model version, and the way from it to the workers and back."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from coalmine.clock import Clock
from coalmine.errors import DeadlineSpent, Overloaded, Unavailable
from coalmine_server.batch_plan import next_batch
from coalmine_server.config import ModelConfig
from coalmine_server.metrics import VersionMetrics
from coalmine_server.runtime.execution import Arrays, Ran, Result
from coalmine_server.signature import Checked, ShapeKey

QUEUE_BYTES_MAX: Final = 512 * 1024 * 1024


class Runs(Protocol):
    """Something that runs one batch at a time."""

    def submit(self, batch: Sequence[Arrays], done: Callable[[Ran], None]) -> None:
        """Run `batch` elsewhere, then call `done` on the loop."""
        ...


class Handle(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it has gone off."""
        ...


class Timer(Protocol):
    """Where a part has itself woken."""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Handle:
        """Call `callback` on the loop at a monotonic time."""
        ...


class LoopTimer:
    """Timers of the running loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Handle:
        """Call `callback` at `when_ns`, never before it: uvloop counts whole milliseconds."""
        ahead_ms = max(0, math.ceil((when_ns - self._clock.monotonic_ns()) / 1_000_000))
        return self._loop.call_later(ahead_ms / 1_000, callback)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a batch and the queue may hold, and how long a request waits for others."""

    rows_max: int
    queue_rows_max: int
    max_delay_ns: int
    queue_bytes_max: int = QUEUE_BYTES_MAX

    @classmethod
    def of(cls, config: ModelConfig) -> "Limits":
        """Return the limits that a config.yaml sets."""
        return cls(config.rows_max, config.queue_rows_max, config.batching.max_delay)


@dataclass(slots=True, eq=False)
class Pending:
    """One request on its way; monotonic nanoseconds, 0 where it hasn't come so far."""

    arrays: Arrays
    rows: int
    shape_key: ShapeKey
    arrived_ns: int
    deadline_ns: int | None
    future: asyncio.Future[Result]
    started_ns: int = 0
    ended_ns: int = 0
    batch_rows: int = 0

    @property
    def bytes(self) -> int:
        """How much memory its inputs take."""
        return sum(array.nbytes for array in self.arrays)


class Batcher:
    """Collects requests into batches. Everything here happens on the loop."""

    def __init__(
        self,
        *,
        label: str,
        limits: Limits,
        workers: Sequence[Runs],
        clock: Clock,
        timer: Timer,
        metrics: VersionMetrics,
    ) -> None:
        self._label = label
        self._limits = limits
        self._idle = list(workers)
        self._clock = clock
        self._timer = timer
        self._metrics = metrics
        self._waiting: dict[int, Pending] = {}  # by id, in order of arrival
        self._rows = 0
        self._bytes = 0
        self._wake: Handle | None = None
        self._expiry: Handle | None = None
        self._expiry_ns = 0
        self._is_closed = False

    @property
    def queue_rows(self) -> int:
        """How many rows wait."""
        return self._rows

    def enter(self, request: Checked, deadline_ns: int | None) -> Pending:
        """Queue a request, and start what is now due. Raises Overloaded or Unavailable."""
        if self._is_closed:
            raise Unavailable(f"{self._label}: is being unloaded")
        pending = Pending(
            request.arrays,
            request.rows,
            request.shape_key,
            self._clock.monotonic_ns(),
            deadline_ns,
            asyncio.get_running_loop().create_future(),
        )
        self._admit(pending)
        self._dispatch()
        if deadline_ns is not None and id(pending) in self._waiting:
            self._watch_deadline(deadline_ns)
        return pending

    async def outcome(self, pending: Pending) -> Arrays:
        """Return the outputs. Raises ModelFailed, DeadlineSpent or Unavailable.

        Cancelled, a request that waits is dropped; one that runs is left to run for its batch.
        """
        try:
            result = await pending.future
        except asyncio.CancelledError:
            self._leave(pending)
            raise
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Take no more, and turn away what waits."""
        self._is_closed = True
        for pending in list(self._waiting.values()):
            self._leave(pending)
            _settle(pending.future, Unavailable(f"{self._label}: is being unloaded"))
        self._sleep()
        if self._expiry is not None:
            self._expiry.cancel()

    # ------------------------------------------------------------ in and out of the queue

    def _admit(self, pending: Pending) -> None:
        limits, size = self._limits, pending.bytes
        if self._rows + pending.rows > limits.queue_rows_max:
            raise Overloaded(
                f"{self._label}: the queue is full, {self._rows} rows wait, "
                f"at most {limits.queue_rows_max} may"
            )
        if self._bytes + size > limits.queue_bytes_max:
            raise Overloaded(
                f"{self._label}: the queue is full, {self._bytes} bytes wait, "
                f"at most {limits.queue_bytes_max} may"
            )
        self._waiting[id(pending)] = pending
        self._rows += pending.rows
        self._bytes += size

    def _leave(self, pending: Pending) -> None:
        if self._waiting.pop(id(pending), None) is None:
            return
        self._rows -= pending.rows
        self._bytes -= pending.bytes

    def _watch_deadline(self, deadline_ns: int) -> None:
        # One timer for the soonest, left standing when its request runs: a timer for each request
        # would cost more than all the rest that the queue does for it.
        if self._expiry is not None:
            if self._expiry_ns <= deadline_ns:
                return
            self._expiry.cancel()
        self._expiry, self._expiry_ns = self._timer.call_at(deadline_ns, self._expired), deadline_ns

    def _expired(self) -> None:
        self._expiry = None
        now_ns = self._clock.monotonic_ns()
        for pending in list(self._waiting.values()):
            if pending.deadline_ns is None:
                continue
            if pending.deadline_ns <= now_ns:
                self._expire(pending)
            else:
                self._watch_deadline(pending.deadline_ns)

    def _expire(self, pending: Pending) -> None:
        self._leave(pending)
        waited_ms = (self._clock.monotonic_ns() - pending.arrived_ns) // 1_000_000
        _settle(
            pending.future,
            DeadlineSpent(f"{self._label}: the deadline passed in the queue, after {waited_ms} ms"),
        )

    # ------------------------------------------------------------ to the workers and back

    def _dispatch(self) -> None:
        self._sleep()
        while self._idle and self._waiting:
            plan = next_batch(
                self._waiting.values(),
                now_ns=self._clock.monotonic_ns(),
                rows_max=self._limits.rows_max,
                max_delay_ns=self._limits.max_delay_ns,
            )
            for pending in plan.expired:
                self._expire(pending)
            if plan.batch:
                self._start(plan.batch)
            elif plan.look_again_ns is not None:
                self._wake = self._timer.call_at(plan.look_again_ns, self._dispatch)
                return

    def _sleep(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _start(self, batch: Sequence[Pending]) -> None:
        worker = self._idle.pop()
        now_ns = self._clock.monotonic_ns()
        rows = sum(each.rows for each in batch)
        for each in batch:
            self._leave(each)
            each.started_ns = now_ns
            each.batch_rows = rows
            self._metrics.waited((now_ns - each.arrived_ns) / 1e9)
        worker.submit([each.arrays for each in batch], lambda ran: self._done(worker, batch, ran))

    def _done(self, worker: Runs, batch: Sequence[Pending], ran: Ran) -> None:
        self._idle.append(worker)
        self._metrics.ran(batch[0].batch_rows, (ran.ended_ns - ran.started_ns) / 1e9)
        for pending, result in zip(batch, ran.results, strict=True):
            pending.started_ns, pending.ended_ns = ran.started_ns, ran.ended_ns
            _settle(pending.future, result)
        self._dispatch()


def _settle(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():  # cancelled: nobody waits for it
        future.set_result(result)

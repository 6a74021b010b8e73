"""The way of the requests of one model version: into its queue, to its workers, and back."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from coalmine.clock import Clock
from coalmine.errors import DeadlineSpent, Unavailable
from coalmine_server.batching.burst import Burst
from coalmine_server.batching.request_queue import Batch, PendingRequest, QueueLimits, RequestQueue
from coalmine_server.batching.timers import Alarm, Timer
from coalmine_server.figures.statistics import VersionStatistics
from coalmine_server.runtime.execution import BatchRun, Result
from coalmine_server.signature import CheckedRequest
from coalmine_server.spans import TracedRequest

_log = structlog.get_logger(__name__)


# An answer waits no longer than this while its worker runs the next request.
_COLLECT_WITHIN_NS: Final = 5_000_000


class BurstRunner(Protocol):
    """Runs one burst at a time."""

    def submit(self, burst: Burst, notify_progress: Callable[[bool], object]) -> None:
        """Run `burst` elsewhere; call `notify` on the loop now and then, at its end with True."""
        ...


class Batcher:
    """Collects requests into batches. Everything here happens on the loop.

    A model that takes one row at a time can't batch, and to hand each request to a worker and back
    would cost more than a small model does. So workers of such a model take one waiting request
    after another themselves, and notify the loop of several together.
    """

    def __init__(
        self,
        *,
        label: str,
        limits: QueueLimits,
        workers: Sequence[BurstRunner],
        clock: Clock,
        timer: Timer,
        statistics: VersionStatistics,
    ) -> None:
        self._label = label
        self._limits = limits
        self._idle = list(workers)
        self._bursts: set[Burst] = set()
        self._clock = clock
        self._statistics = statistics
        self._waiting = RequestQueue(label, limits)
        self._due = Alarm(timer, self._dispatch)
        self._expiry = Alarm(timer, self._expire_due)
        self._collect_alarm = Alarm(timer, self._collect_all_bursts)
        self._is_unbatched = limits.rows_max == 1  # each request, in its batch
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

    def enqueue(
        self, request: CheckedRequest, deadline_ns: int | None, traced: TracedRequest | None = None
    ) -> PendingRequest:
        """Queue a request, and start what is now due. Raises Overloaded or Unavailable."""
        if self._is_closed:
            raise Unavailable(f"{self._label}: is being unloaded")
        now_ns = self._clock.monotonic_ns()
        future = asyncio.get_running_loop().create_future()
        pending = PendingRequest(
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
        elif self._can_run_at_once(pending):
            self._start_batch((pending,))
        else:
            self._admit_to_queue(pending)
        return pending

    async def wait_for_answer(self, pending: PendingRequest) -> bytes:
        """Return the serialised answer. Raises ModelFailed, DeadlineSpent or Unavailable.

        Cancelled, a request that waits is dropped; one that runs is left to run for its batch.
        """
        try:
            result = await pending.future
        except asyncio.CancelledError:
            self._waiting.remove(pending)
            self._signal_if_empty()
            raise
        if isinstance(result, Exception):
            raise result
        return result

    async def wait_drained(self) -> None:
        """Wait until no request waits or runs: for ever, where a forward never returns."""
        while self._waiting or self._bursts:
            self._emptied.clear()
            await self._emptied.wait()

    def close(self) -> None:
        """Take no more requests, and refuse those that wait."""
        self._is_closed = True
        for pending in self._waiting.remove_all():
            _settle(pending.future, Unavailable(f"{self._label}: is being unloaded"))
        self._due.turn_off()
        self._expiry.turn_off()
        self._signal_if_empty()

    def _signal_if_empty(self) -> None:
        if not self._waiting and not self._bursts:
            self._emptied.set()

    # ------------------------------------------------------------ in and out of the queue

    def _can_run_at_once(self, pending: PendingRequest) -> bool:
        # What waits while a worker is idle isn't due; and it may be of the same shape, thus first.
        limits = self._limits
        is_due = not limits.max_delay_ns or pending.rows == limits.rows_max
        return bool(self._idle) and is_due and not self._waiting and not self._is_unbatched

    def _admit_to_queue(self, pending: PendingRequest) -> None:
        fills_batch = self._waiting.admit(pending, unoccupied=self._unoccupied_workers())
        if pending.deadline_ns is not None:
            self._expiry.ring_by(pending.deadline_ns)
        if not self._idle:
            return  # the worker that is done first takes it
        if fills_batch:
            self._dispatch()
        else:
            self._due.ring_by(pending.arrived_ns + self._limits.max_delay_ns)

    def _unoccupied_workers(self) -> int:
        """Return how many workers are about to take a waiting request."""
        if not self._is_unbatched:
            return 0
        return len(self._idle) + sum(not each.has_begun for each in self._bursts)

    def _expire_due(self) -> None:
        expired, next_ns = self._waiting.remove_expired(self._clock.monotonic_ns())
        for pending in expired:
            self._expire(pending)
        if next_ns is not None:
            self._expiry.ring_by(next_ns)
        self._signal_if_empty()

    def _expire(self, pending: PendingRequest) -> None:
        waited_ms = (self._clock.monotonic_ns() - pending.arrived_ns) // 1_000_000
        _settle(
            pending.future,
            DeadlineSpent(f"{self._label}: the deadline passed in the queue, after {waited_ms} ms"),
        )

    # ------------------------------------------------------------ to the workers and back

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            if self._is_unbatched:
                self._submit_to_idle_worker(Burst.of_waiting(self._waiting, self._clock))
                return  # it may be all that one worker needs to be woken for
            taken = self._waiting.take(self._clock.monotonic_ns())
            for pending in taken.expired:
                self._expire(pending)
            # One that was cancelled a moment ago may not have been taken out of the queue yet.
            wanted = [each for each in taken.batch if not each.future.done()]
            if wanted:
                self._start_batch(wanted)
            if taken.next_due_ns is not None:
                self._due.ring_by(taken.next_due_ns)
                return
        self._signal_if_empty()

    def _start_batch(self, requests: Sequence[PendingRequest]) -> None:
        self._submit_to_idle_worker(Burst.of_batch(requests, self._clock))

    def _submit_to_idle_worker(self, burst: Burst) -> None:
        worker = self._idle.pop()
        self._bursts.add(burst)
        if self._is_unbatched:
            self._collect_alarm.ring_by(burst.notified_ns + _COLLECT_WITHIN_NS)
        worker.submit(burst, partial(self._on_progress, worker, burst))

    def _on_progress(self, worker: BurstRunner, burst: Burst, is_over: bool) -> None:  # noqa: FBT001 - a callback's
        self._collect_batches(burst)
        if is_over:
            self._bursts.discard(burst)
            self._idle.append(worker)
            if self._waiting and self._is_unbatched:
                self._expire_due()  # a worker stops at a request that has expired
            self._dispatch()
        else:
            burst.notified_ns = self._clock.monotonic_ns()
            self._collect_alarm.ring_by(burst.notified_ns + _COLLECT_WITHIN_NS)

    def _collect_all_bursts(self) -> None:
        """Collect answers while their worker is in a forward that takes long, and can't notify."""
        now_ns = self._clock.monotonic_ns()
        for burst in self._bursts:
            self._collect_batches(burst)
            if burst.notified_ns + _COLLECT_WITHIN_NS > now_ns:
                self._collect_alarm.ring_by(burst.notified_ns + _COLLECT_WITHIN_NS)

    def _collect_batches(self, burst: Burst) -> None:
        for batch, requests, ran in burst.collect_ended():
            self._conclude(batch, requests, ran)

    def _conclude(self, batch: Batch, requests: Sequence[PendingRequest], ran: BatchRun) -> None:
        batch.started_ns, batch.ended_ns = ran.started_ns, ran.ended_ns
        rows = 0
        waited_ns: list[int] = []
        for pending, result in zip(requests, ran.results, strict=True):
            if isinstance(result, Exception):
                self._log_failure_if_abandoned(pending, result)
            else:
                rows += pending.rows
                waited_ns.append(ran.started_ns - pending.arrived_ns)
            _settle(pending.future, result)
        if rows:
            self._count_batch(rows, waited_ns, ran)

    def _count_batch(self, rows: int, waited_ns: Sequence[int], ran: BatchRun) -> None:
        self._statistics.count_batch(
            rows,
            waited_ns,
            input_ns=ran.infer_ns - ran.started_ns,
            infer_ns=ran.output_ns - ran.infer_ns,
            output_ns=ran.ended_ns - ran.output_ns,
            ended_ms=self._clock.wall_ns() // 1_000_000,
        )

    def _log_failure_if_abandoned(self, pending: PendingRequest, error: Exception) -> None:
        if pending.future.done():  # its caller is gone, so no call logs it with its trace
            _log.warning("model_failed", label=self._label, exc_info=error.__cause__)


def _settle(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():  # else it was cancelled
        future.set_result(result)

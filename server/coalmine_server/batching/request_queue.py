"""The bounded queue of one model version."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from coalmine.errors import Overloaded
from coalmine_server.batching.batch_plan import BatchPlan, TakeResult
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.execution import Result
from coalmine_server.signature import CheckedRequest, ShapeKey
from coalmine_server.spans import TracedRequest


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much a batch and the queue may hold, and how long a request waits for others."""

    rows_max: int
    queue_rows_max: int
    max_delay_ns: int
    queue_bytes_max: int

    @classmethod
    def of(cls, config: ModelConfig) -> "QueueLimits":
        """Return the limits that a config.yaml sets."""
        batching = config.batching
        return cls(
            config.rows_max,
            config.queue_rows_max,
            batching.max_delay,
            batching.max_queue_bytes,
        )


@dataclass(slots=True, eq=False)
class Batch:
    """What the requests of one batch share. Monotonic nanoseconds; 0: that hasn't come so far.

    `traced` are those whose spans are kept.
    """

    started_ns: int
    ended_ns: int = 0
    rows: int = 0
    traced: list[TracedRequest] = field(default_factory=list)

    @classmethod
    def of(cls, requests: "Sequence[PendingRequest]", started_ns: int) -> "Batch":
        """Make a batch of `requests`, and let each of them know it."""
        batch = cls(started_ns)
        for each in requests:
            each.batch = batch
            batch.rows += each.rows
            if each.traced is not None:
                batch.traced.append(each.traced)
        return batch


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request in a queue or a batch; it has a batch once it runs."""

    request: CheckedRequest
    rows: int
    shape_key: ShapeKey
    priority: int
    arrived_ns: int
    deadline_ns: int | None
    future: asyncio.Future[Result]
    traced: TracedRequest | None
    batch: Batch | None = None


class RequestQueue:
    """The waiting requests, within limits. Workers take some too: a lock guards each step."""

    def __init__(self, label: str, limits: QueueLimits) -> None:
        self._label = label
        self._limits = limits
        self._plan: BatchPlan[PendingRequest] = BatchPlan(
            rows_max=limits.rows_max, max_delay_ns=limits.max_delay_ns
        )
        self._lock = threading.Lock()
        self.rows = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return self.rows > 0

    def admit(self, pending: PendingRequest, *, unoccupied: int = 0) -> bool:
        """Add a request; return whether those of its shape fill a batch. Raises Overloaded.

        `unoccupied` workers are each about to take a single request, to which no limit applies.
        """
        size = pending.request.nbytes
        with self._lock:
            if self.rows >= unoccupied:
                self._check_room(self.rows - unoccupied + pending.rows, self.bytes + size)
            self.rows += pending.rows
            self.bytes += size
            return self._plan.add(pending)

    def remove(self, pending: PendingRequest) -> bool:
        """Remove a request; return whether it waited."""
        with self._lock:
            if not self._plan.remove(pending):
                return False
            self._subtract_size(pending)
            return True

    def remove_all(self) -> list[PendingRequest]:
        """Remove all requests and return them."""
        with self._lock:
            found = list(self._plan)
            for pending in found:
                self._plan.remove(pending)
                self._subtract_size(pending)
            return found

    def take(self, now_ns: int) -> TakeResult[PendingRequest]:
        """Take the batch that an idle worker runs, or the expired requests before it."""
        with self._lock:
            taken = self._plan.take(now_ns)
            for pending in taken.batch or taken.expired:
                self._subtract_size(pending)
            return taken

    def take_one(self, now_ns: int) -> PendingRequest | None:
        """Take the request that a worker runs next, alone; None where none may run."""
        with self._lock:
            pending = self._plan.take_one(now_ns)
            if pending is not None:
                self._subtract_size(pending)
            return pending

    def remove_expired(self, now_ns: int) -> tuple[list[PendingRequest], int | None]:
        """Remove and return those whose deadline has passed; also return when the next one does."""
        with self._lock:
            dated = [
                (each.deadline_ns, each) for each in self._plan if each.deadline_ns is not None
            ]
            expired = [each for deadline_ns, each in dated if deadline_ns <= now_ns]
            for pending in expired:
                self._plan.remove(pending)
                self._subtract_size(pending)
        later = [deadline_ns for deadline_ns, _ in dated if deadline_ns > now_ns]
        return expired, min(later, default=None)

    def _subtract_size(self, pending: PendingRequest) -> None:
        self.rows -= pending.rows
        self.bytes -= pending.request.nbytes

    def _check_room(self, rows: int, size: int) -> None:
        limits = self._limits
        if rows > limits.queue_rows_max:
            raise self._full_error(f"{self.rows} rows wait, at most {limits.queue_rows_max} may")
        if size > limits.queue_bytes_max:
            raise self._full_error(f"{self.bytes} bytes wait, at most {limits.queue_bytes_max} may")

    def _full_error(self, why: str) -> Overloaded:
        return Overloaded(f"{self._label}: the queue is full, {why}")

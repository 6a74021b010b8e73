"""The bounded queue of one model version: what waits, and how much of it may."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from coalmine.errors import Overloaded
from coalmine_server.batching.batch_plan import Line, Taken
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.execution import Result
from coalmine_server.signature import Checked, ShapeKey
from coalmine_server.spans import Traced


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
    """What the requests of one batch share; monotonic nanoseconds, 0 where it hasn't come so far.

    `traced` are those whose spans are kept.
    """

    started_ns: int
    ended_ns: int = 0
    rows: int = 0
    traced: list[Traced] = field(default_factory=list)

    @classmethod
    def of(cls, requests: "Sequence[Pending]", started_ns: int) -> "Batch":
        """Return the batch that `requests` are from now on."""
        batch = cls(started_ns)
        for each in requests:
            each.batch = batch
            batch.rows += each.rows
            if each.traced is not None:
                batch.traced.append(each.traced)
        return batch


@dataclass(slots=True, eq=False)
class Pending:
    """One request on its way; it has a batch once it runs."""

    request: Checked
    rows: int
    shape_key: ShapeKey
    priority: int
    arrived_ns: int
    deadline_ns: int | None
    future: asyncio.Future[Result]
    traced: Traced | None
    batch: Batch | None = None


class RequestQueue:
    """What waits, within the limits. Workers may take from it: each step is made under a lock."""

    def __init__(self, label: str, limits: QueueLimits) -> None:
        self._label = label
        self._limits = limits
        self._line: Line[Pending] = Line(rows_max=limits.rows_max, max_delay_ns=limits.max_delay_ns)
        self._lock = threading.Lock()
        self.rows = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return self.rows > 0

    def admit(self, pending: Pending, *, unoccupied: int = 0) -> bool:
        """Let a request wait; return whether those of its shape fill a batch. Raises Overloaded.

        Of single requests, as many as workers are `unoccupied` are about to run: no limit is
        for them.
        """
        size = pending.request.nbytes
        with self._lock:
            if self.rows >= unoccupied:
                self._check_room(self.rows - unoccupied + pending.rows, self.bytes + size)
            self.rows += pending.rows
            self.bytes += size
            return self._line.add(pending)

    def leave(self, pending: Pending) -> bool:
        """Let a request wait no more; return whether it did."""
        with self._lock:
            if not self._line.remove(pending):
                return False
            self._release(pending)
            return True

    def leave_all(self) -> list[Pending]:
        """Let nothing wait any more; return what did."""
        with self._lock:
            found = list(self._line)
            for pending in found:
                self._line.remove(pending)
                self._release(pending)
            return found

    def take(self, now_ns: int) -> Taken[Pending]:
        """Take what an idle worker is to run, or what must be answered first."""
        with self._lock:
            taken = self._line.take(now_ns)
            for pending in taken.batch or taken.expired:
                self._release(pending)
            return taken

    def take_one(self, now_ns: int) -> Pending | None:
        """Take the request that a worker runs next, alone; None where none may be run."""
        with self._lock:
            pending = self._line.take_one(now_ns)
            if pending is not None:
                self._release(pending)
            return pending

    def leave_expired(self, now_ns: int) -> tuple[list[Pending], int | None]:
        """Drop those whose deadline has passed; return them, and when the next one passes."""
        with self._lock:
            dated = [
                (each.deadline_ns, each) for each in self._line if each.deadline_ns is not None
            ]
            expired = [each for deadline_ns, each in dated if deadline_ns <= now_ns]
            for pending in expired:
                self._line.remove(pending)
                self._release(pending)
        later = [deadline_ns for deadline_ns, _ in dated if deadline_ns > now_ns]
        return expired, min(later, default=None)

    def _release(self, pending: Pending) -> None:
        self.rows -= pending.rows
        self.bytes -= pending.request.nbytes

    def _check_room(self, rows: int, size: int) -> None:
        limits = self._limits
        if rows > limits.queue_rows_max:
            raise self._full(f"{self.rows} rows wait, at most {limits.queue_rows_max} may")
        if size > limits.queue_bytes_max:
            raise self._full(f"{self.bytes} bytes wait, at most {limits.queue_bytes_max} may")

    def _full(self, why: str) -> Overloaded:
        return Overloaded(f"{self._label}: the queue is full, {why}")

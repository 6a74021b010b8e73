"""The jobs for other processes: those that wait, and those under way."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

# Enough jobs for a round trip to a process; what is beyond is left to other processes.
BATCH_JOBS_MAX: Final = 64
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024


class SizedJob(Protocol):
    """A job whose size is known: job.ComparisonJob is one."""

    @property
    def size_bytes(self) -> int:
        """The size of what is compared."""
        ...


Job = TypeVar("Job", bound=SizedJob)
Results = TypeVar("Results")


@dataclass(slots=True, eq=False)
class PendingJob(Generic[Job, Results]):
    """A job without a result yet, and the future that gets it; None: it was left out."""

    job: Job
    size_bytes: int
    outcome: "asyncio.Future[Results | None]"


class Backlog(Generic[Job, Results]):
    """Ends every job once, with results or without, and counts it."""

    def __init__(self, jobs_max: int, bytes_max: int) -> None:
        self.compared = 0
        self.left_out = 0
        self.bytes = 0
        self.queue_bytes = 0
        self._jobs_max = jobs_max
        self._bytes_max = bytes_max
        self._all: set[PendingJob[Job, Results]] = set()
        self._queue: deque[PendingJob[Job, Results]] = deque()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def fill(self) -> float:
        """How full it is, 0 to 1. One job may go over it.

        Otherwise large jobs would be left out more often than small ones.
        """
        return max(len(self._all) / self._jobs_max, self.bytes / self._bytes_max)

    @property
    def batches(self) -> int:
        """How many batches wait; the last may be a small one."""
        jobs = math.ceil(len(self._queue) / BATCH_JOBS_MAX)
        return max(jobs, math.ceil(self.queue_bytes / BATCH_BYTES_MAX))

    async def wait_until_empty(self) -> None:
        """Return once no job waits or is under way."""
        await self._empty.wait()

    def put(self, job: Job) -> PendingJob[Job, Results]:
        """Queue a job."""
        size_bytes = job.size_bytes
        outcome = asyncio.get_running_loop().create_future()
        waiting = PendingJob[Job, Results](job, size_bytes, outcome)
        self._all.add(waiting)
        self.bytes += size_bytes
        self._queue.append(waiting)
        self.queue_bytes += size_bytes
        self._empty.clear()
        return waiting

    def take(self, processes: int) -> list[PendingJob[Job, Results]]:
        """Take the next batch from the queue: a share for one of `processes`, within the bounds."""
        most = min(math.ceil(len(self._queue) / processes), BATCH_JOBS_MAX)
        taken: list[PendingJob[Job, Results]] = []
        size_bytes = 0
        while self._queue and len(taken) < most:
            size_bytes += self._queue[0].size_bytes
            if taken and size_bytes > BATCH_BYTES_MAX:
                break
            each = self._queue.popleft()
            self.queue_bytes -= each.size_bytes
            if each in self._all:
                taken.append(each)
        return taken

    def end(self, waiting: PendingJob[Job, Results], results: Results | None) -> None:
        """End a job with its results, or None where it is left out. Only the first call counts."""
        if waiting not in self._all:
            return
        self._all.discard(waiting)
        self.bytes -= waiting.size_bytes
        if results is None:
            self.left_out += 1
        else:
            self.compared += 1
        if not waiting.outcome.done():
            waiting.outcome.set_result(results)
        if not self._all:
            self._empty.set()

    def clear(self) -> None:
        """Leave out all jobs that wait or are under way."""
        self._queue.clear()
        self.queue_bytes = 0
        for waiting in list(self._all):
            self.end(waiting, None)

"""The jobs that are compared elsewhere, from the queue until they came to something."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

# A round trip to a process is worth it for so many; another process waits for no more.
BATCH_JOBS_MAX: Final = 64
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024


class Comparable(Protocol):
    """A job, as far as it matters where it is done: job.Job is one."""

    @property
    def size_bytes(self) -> int:
        """What is compared."""
        ...


Job = TypeVar("Job", bound=Comparable)
Results = TypeVar("Results")


@dataclass(slots=True, eq=False)
class WaitingJob(Generic[Job, Results]):
    """A job, and where whoever brought it waits."""

    job: Job
    size_bytes: int
    done: "asyncio.Future[Results | None]"


class Backlog(Generic[Job, Results]):
    """Every job that is put in comes out once, with results or without, and is counted."""

    def __init__(self, jobs_max: int, bytes_max: int) -> None:
        self.compared = 0
        self.left_out = 0
        self.bytes = 0
        self.queue_bytes = 0
        self._jobs_max = jobs_max
        self._bytes_max = bytes_max
        self._all: set[WaitingJob[Job, Results]] = set()
        self._queue: deque[WaitingJob[Job, Results]] = deque()
        self._settled = asyncio.Event()
        self._settled.set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def fill(self) -> float:
        """How much of it is taken, 0 to 1; one job may go over it.

        Else what is large would be left out more often than what is small.
        """
        return max(len(self._all) / self._jobs_max, self.bytes / self._bytes_max)

    @property
    def batches(self) -> int:
        """How many batches wait; the last of them may be a small one."""
        jobs = math.ceil(len(self._queue) / BATCH_JOBS_MAX)
        return max(jobs, math.ceil(self.queue_bytes / BATCH_BYTES_MAX))

    async def settled(self) -> None:
        """Return once it is empty."""
        await self._settled.wait()

    def put(self, job: Job) -> WaitingJob[Job, Results]:
        """Let a job wait."""
        size_bytes = job.size_bytes
        done = asyncio.get_running_loop().create_future()
        waiting = WaitingJob[Job, Results](job, size_bytes, done)
        self._all.add(waiting)
        self.bytes += size_bytes
        self._queue.append(waiting)
        self.queue_bytes += size_bytes
        self._settled.clear()
        return waiting

    def take(self, processes: int) -> list[WaitingJob[Job, Results]]:
        """Return the next batch: one of so many shares of what waits, within the bounds."""
        most = min(math.ceil(len(self._queue) / processes), BATCH_JOBS_MAX)
        taken: list[WaitingJob[Job, Results]] = []
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

    def end(self, waiting: WaitingJob[Job, Results], results: Results | None) -> None:
        """Say what came of a job, None being nothing; the first word holds."""
        if waiting not in self._all:
            return
        self._all.discard(waiting)
        self.bytes -= waiting.size_bytes
        if results is None:
            self.left_out += 1
        else:
            self.compared += 1
        if not waiting.done.done():
            waiting.done.set_result(results)
        if not self._all:
            self._settled.set()

    def clear(self) -> None:
        """Leave out all that waits, and all that is being compared."""
        self._queue.clear()
        self.queue_bytes = 0
        for waiting in list(self._all):
            self.end(waiting, None)

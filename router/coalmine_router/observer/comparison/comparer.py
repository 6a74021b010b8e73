"""Compares small jobs on the event loop, and large or many ones in other processes.

Where those can't keep up, an even share of the jobs is compared, and the others are counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import structlog

from coalmine.clock import Clock
from coalmine_router.observer.comparison.backlog import Backlog, Job, Results
from coalmine_router.observer.comparison.loop_load import LoopLoad
from coalmine_router.observer.comparison.process_pool import ProcessPool
from coalmine_router.observer.comparison.thinning import Chance, Thinning, share_at
from coalmine_router.observer.comparison.worker_process import CompareWorker

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ComparerLimits:
    """Bounds of the backlog, and of what is compared on the event loop."""

    backlog_jobs_max: int = 4_096
    backlog_bytes_max: int = 256 * 1024 * 1024
    # Of one job: the control API waits while the loop compares it.
    loop_bytes_max: int = 64 * 1024
    # Of the loop's time; above it, processes take over.
    loop_share_max: float = 0.5
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ComparingCounts:
    """How comparing keeps up: what waits now, what was compared and left out since the start.

    `share_bp` is the share of jobs that is compared now. `waiting` includes jobs under way.
    """

    waiting: int
    waiting_bytes: int
    share_bp: int
    processes: int
    compared: int
    left_out: int


class Comparer(Generic[Job, Results]):
    """`run` compares one job; `start` starts a process that does the same, `processes_max` at most.

    Every job ends as compared or left out. A job that was begun is left out only where its process
    is lost.
    """

    def __init__(
        self,
        *,
        run: Callable[[Job], Results],
        start: Callable[[], CompareWorker],
        clock: Clock,
        chance: Chance,
        processes_max: int,
        limits: ComparerLimits | None = None,
    ) -> None:
        self._run = run
        self._clock = clock
        self._limits = limits or ComparerLimits()
        self._thinning = Thinning(chance)
        self._busy = LoopLoad()
        self._backlog: Backlog[Job, Results] = Backlog(
            self._limits.backlog_jobs_max, self._limits.backlog_bytes_max
        )
        self._processes = ProcessPool(
            self._backlog, start, clock, most=processes_max, idle_s=self._limits.idle_s
        )

    async def run(self) -> None:
        """Run as many processes as there is work for, until cancelled."""
        await self._processes.run()

    async def wait_until_idle(self) -> None:
        """Return once no job waits or is under way."""
        await self._backlog.wait_until_empty()

    def counts(self) -> ComparingCounts:
        """Return how comparing keeps up."""
        return ComparingCounts(
            waiting=len(self._backlog),
            waiting_bytes=self._backlog.bytes,
            share_bp=round(10_000 * self._share_to_compare()),
            processes=self._processes.running,
            compared=self._backlog.compared,
            left_out=self._backlog.left_out,
        )

    async def compare(self, job: Job) -> Results | None:
        """Compare a job; return its results, or None where it was left out, which is counted."""
        if not self._thinning.draw(self._share_to_compare()):
            self._backlog.left_out += 1
            return None
        if job.size_bytes <= self._limits.loop_bytes_max and self._is_loop_free():
            return self._compare_on_loop(job)
        if not self._processes.is_available:
            self._backlog.left_out += 1
            return None
        return await self._compare_in_process(job)

    def _share_to_compare(self) -> float:
        # Without processes, the loop is all there is.
        loop = self._loop_share() if self._processes.is_backing_off else 0.0
        return share_at(max(self._backlog.fill, loop))

    def _loop_share(self) -> float:
        return self._busy.share(self._clock.monotonic_ns())

    def _is_loop_free(self) -> bool:
        if not self._processes.is_available:
            return True
        return not self._backlog.batches and self._loop_share() < self._limits.loop_share_max

    def _compare_on_loop(self, job: Job) -> Results | None:
        began_ns = self._clock.monotonic_ns()
        try:
            results = self._run(job)
        except Exception:  # noqa: BLE001 - one odd job must not cost others
            _log.exception("comparison_failed")
            self._backlog.left_out += 1
            return None
        finally:
            now_ns = self._clock.monotonic_ns()
            self._busy.add_time(now_ns - began_ns, now_ns)
        self._backlog.compared += 1
        return results

    async def _compare_in_process(self, job: Job) -> Results | None:
        waiting = self._backlog.put(job)
        self._processes.wake_or_start()
        try:
            return await waiting.outcome
        finally:
            self._backlog.end(waiting, None)  # where the caller was cancelled

"""Runs as many comparing processes as there is work for; a lost one costs its own jobs only."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Generic

import structlog

from coalmine.clock import Clock
from coalmine.process.blocking_thread import run_in_thread
from coalmine_router.observer.comparison.backlog import Backlog, Job, PendingJob, Results
from coalmine_router.observer.comparison.worker_process import CompareWorker, WorkerLost

_log = structlog.get_logger(__name__)

_REST_FIRST_NS: Final = 10**9
_REST_MAX_NS: Final = 60 * 10**9


class ProcessPool(Generic[Job, Results]):
    """Starts a process when a batch waits, and ends it after `idle_s` without work."""

    def __init__(
        self,
        backlog: Backlog[Job, Results],
        start: Callable[[], CompareWorker],
        clock: Clock,
        *,
        most: int,
        idle_s: float,
    ) -> None:
        self.running = 0
        self._backlog = backlog
        self._start = start
        self._clock = clock
        self._most = most
        self._idle_s = idle_s
        # The process that became free last is woken first, so that the others can end.
        self._free: list[asyncio.Future[None]] = []
        self._failures = 0
        self._rest_until_ns = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run processes until cancelled; then leave out what is in the backlog."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._stay_open(tasks)
        finally:
            self._backlog.clear()

    @property
    def is_available(self) -> bool:
        """Whether a process can take work: one runs, or can be started."""
        return self._tasks is not None and not self.is_backing_off

    @property
    def is_backing_off(self) -> bool:
        """Whether no process is started now, because several were lost one after the other."""
        return self._clock.monotonic_ns() < self._rest_until_ns

    def wake_or_start(self) -> None:
        """Wake a free process, and start others for the batches that wait."""
        if self._free:
            self._free.pop().set_result(None)
        while self._tasks is not None and self.running < min(self._backlog.batches, self._most):
            self.running += 1
            self._tasks.create_task(self._run_process())

    async def _stay_open(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        try:
            await asyncio.Event().wait()
        finally:
            self._tasks = None  # a group that is ending doesn't cancel tasks started in it

    # ------------------------------------------------------------ one process

    async def _run_process(self) -> None:
        """Run one process until it has had no work for long, or is lost."""
        try:
            await self._serve_batches()
        except Exception as error:  # noqa: BLE001 - without it, there is always the loop
            self._note_loss(f"{type(error).__name__}: {error}")
        finally:
            self.running -= 1
        if self.is_available:
            self.wake_or_start()
        elif not self.running:
            self._backlog.clear()

    async def _serve_batches(self) -> None:
        worker = self._start()
        try:
            while await self._wait_for_work():
                if not worker.is_up:
                    raise WorkerLost("it ended while it had nothing to do")
                if batch := self._backlog.take(self.running):
                    await self._answer_batch(worker, batch)
        finally:
            worker.end()

    async def _wait_for_work(self) -> bool:
        """Wait for work; return whether there is any, False after a long time without."""
        while not self._backlog.batches:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._free.append(woken)
            try:
                async with asyncio.timeout(self._idle_s):
                    await woken
            except TimeoutError:
                break
            finally:
                with contextlib.suppress(ValueError):
                    self._free.remove(woken)
        return self._backlog.batches > 0

    async def _answer_batch(
        self, worker: CompareWorker, batch: list[PendingJob[Job, Results]]
    ) -> None:
        jobs: list[Any] = [each.job for each in batch]
        try:
            answers = await run_in_thread(lambda: worker.ask(jobs))
            for waiting, (results, problem) in zip(batch, answers, strict=True):
                if problem:
                    _log.error("comparison_failed", reason=problem)
                self._backlog.end(waiting, results)
        finally:
            for waiting in batch:
                self._backlog.end(waiting, None)
        self._failures = 0

    def _note_loss(self, reason: str) -> None:
        """Note a loss: the first is replaced at once, later ones after a back-off."""
        again = self._failures
        self._failures += 1
        rest_ns = min(_REST_FIRST_NS << min(again - 1, 16), _REST_MAX_NS) if again else 0
        self._rest_until_ns = self._clock.monotonic_ns() + rest_ns
        _log.error("comparing_process_lost", reason=reason, again_in_s=rest_ns / 10**9)

"""Keeps as many comparing processes as there is work for; a lost one costs its own jobs only."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Generic

import structlog

from coalmine.clock import Clock
from coalmine.process.blocking_thread import in_thread
from coalmine_router.observer.comparison.backlog import Backlog, Job, Results, WaitingJob
from coalmine_router.observer.comparison.compare_process import CompareWorker, WorkerLost

_log = structlog.get_logger(__name__)

_REST_FIRST_NS: Final = 10**9
_REST_MAX_NS: Final = 60 * 10**9


class CompareProcesses(Generic[Job, Results]):
    """Begun one by one, when a batch waits; ended where there was no work `idle_s` long."""

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
        # Who has just become free comes last and is called first: so the others can end.
        self._free: list[asyncio.Future[None]] = []
        self._failures = 0
        self._rest_until_ns = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep them until cancelled; then leave out what is in the backlog."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._open(tasks)
        finally:
            self._backlog.clear()

    @property
    def are_any(self) -> bool:
        """Whether work can be given to them: they run, or can be begun."""
        return self._tasks is not None and not self.are_resting

    @property
    def are_resting(self) -> bool:
        """Whether none is begun now, since those before them were lost one after the other."""
        return self._clock.monotonic_ns() < self._rest_until_ns

    def call(self) -> None:
        """See to what waits: wake a free process, begin others as there are batches."""
        if self._free:
            self._free.pop().set_result(None)
        while self._tasks is not None and self.running < min(self._backlog.batches, self._most):
            self.running += 1
            self._tasks.create_task(self._keep())

    async def _open(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        try:
            await asyncio.Event().wait()
        finally:
            self._tasks = None  # a group that ends no longer cancels what is begun in it

    # ------------------------------------------------------------ one process

    async def _keep(self) -> None:
        """Keep one process, until there has been no work for long, or it is lost."""
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - without it, there is always the loop
            self._lost(f"{type(error).__name__}: {error}")
        finally:
            self.running -= 1
        if self.are_any:
            self.call()
        elif not self.running:
            self._backlog.clear()

    async def _serve(self) -> None:
        worker = self._start()
        try:
            while await self._is_called():
                if not worker.is_up:
                    raise WorkerLost("it ended while it had nothing to do")
                if batch := self._backlog.take(self.running):
                    await self._ask(worker, batch)
        finally:
            worker.end()

    async def _is_called(self) -> bool:
        """Return whether there is work, once there is, or has been none for long."""
        while not self._backlog.batches:
            called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._free.append(called)
            try:
                async with asyncio.timeout(self._idle_s):
                    await called
            except TimeoutError:
                break
            finally:
                with contextlib.suppress(ValueError):
                    self._free.remove(called)
        return self._backlog.batches > 0

    async def _ask(self, worker: CompareWorker, batch: list[WaitingJob[Job, Results]]) -> None:
        jobs: list[Any] = [each.job for each in batch]
        try:
            answers = await in_thread(lambda: worker.ask(jobs))
            for waiting, (results, problem) in zip(batch, answers, strict=True):
                if problem:
                    _log.error("comparison_failed", reason=problem)
                self._backlog.end(waiting, results)
        finally:
            for waiting in batch:
                self._backlog.end(waiting, None)
        self._failures = 0

    def _lost(self, reason: str) -> None:
        """Take in a loss: the first is made up for at once, those that follow after a rest."""
        again = self._failures
        self._failures += 1
        rest_ns = min(_REST_FIRST_NS << min(again - 1, 16), _REST_MAX_NS) if again else 0
        self._rest_until_ns = self._clock.monotonic_ns() + rest_ns
        _log.error("comparing_process_lost", reason=reason, again_in_s=rest_ns / 10**9)

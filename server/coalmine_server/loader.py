"""The life of a version, from its file to READY, and to GONE: bytes, threads, warm-up, memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine.errors import StartError
from coalmine.process import machine
from coalmine.process.blocking_thread import run_in_thread
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.request_queue import QueueLimits
from coalmine_server.batching.timers import Timer
from coalmine_server.batching.worker import Worker
from coalmine_server.config import LoadLimits
from coalmine_server.figures.metrics import Metrics
from coalmine_server.registry import State, Version
from coalmine_server.repository import Model, VersionFile
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Signature

_log = structlog.get_logger(__name__)

_THREADS_END_S: Final = 5.0
# Threads of one model that never came back from a load or a forward; then it is loaded no more.
_STUCK_MAX: Final = 16


class Loader:
    """Makes versions and takes them down; the outside world comes in by constructor."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        clock: Clock,
        timer: Timer,
        metrics: Metrics,
        cores: int,
        intra_op: int | None = None,
        limits: LoadLimits = LoadLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._timer = timer
        self._metrics = metrics
        self._cores = cores
        self._intra_op = intra_op
        self.limits = limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._loading: dict[Version, asyncio.Timeout] = {}
        self._retiring: set[Version] = set()
        self._leaving: dict[Worker, str] = {}  # threads that are to end, with their model
        metrics.watch_stuck_threads(self._stuck_threads)

    def new_version(self, model: Model, file: VersionFile) -> Version:
        """Return a version that is LOADING."""
        return Version(
            file=file,
            config=model.config,
            signature=Signature.of(model.name, file.version, model.config),
            statistics=self._metrics.ensure_statistics(model.name, str(file.version)),
        )

    async def load(self, version: Version) -> None:
        """Make a version READY. Raises StartError: it is FAILED, and its thread may still hang."""
        try:
            async with asyncio.timeout(None) as limit:
                self._loading[version] = limit
                async with self._take_slot(version, limit):
                    await self._make_ready(version)
        except TimeoutError:
            self._stop_as_failed(version, version.reason or self._timeout_reason(version))
            raise StartError(version.reason) from None
        except StartError as error:
            self._stop_as_failed(version, str(error))
            raise
        except BaseException:
            self._stop_workers(version)
            raise
        finally:
            self._loading.pop(version, None)

    async def load_all(
        self, versions: Sequence[Version], when_loaded: Callable[[], Awaitable[None]]
    ) -> None:
        """Load versions, the newest first, and await `when_loaded` once all or some are done.

        The first time comes when all are done, or after `slow_s`: so versions that load fast
        appear together. A version that failed is FAILED and says why; nothing is raised for it.
        """
        loading = {asyncio.create_task(self.load(each)) for each in reversed(versions)}
        try:
            timeout_s: float | None = self.limits.slow_s
            until = asyncio.ALL_COMPLETED
            while loading:
                done, loading = await asyncio.wait(loading, timeout=timeout_s, return_when=until)
                _raise_unexpected(done)
                await when_loaded()
                timeout_s, until = None, asyncio.FIRST_COMPLETED
        finally:
            await _cancel_all(loading)

    def give_up_load(self, version: Version, reason: str) -> None:
        """End a load at once: it raises StartError with `reason`."""
        limit = self._loading.get(version)
        if limit is not None and version.state is State.LOADING:
            version.reason = reason
            limit.reschedule(asyncio.get_running_loop().time())

    async def _make_ready(self, version: Version) -> None:
        began_ns = self._clock.monotonic_ns()
        if self._stuck_count(version.file.model) >= _STUCK_MAX:
            raise StartError(
                f"{version.file.path}: {_STUCK_MAX} threads of this model hang: it is loaded no "
                "more until the server is started again"
            )
        data = await run_in_thread(version.file.read)
        await self._open_workers(version, data)
        version.batcher = self._build_batcher(version)
        version.state = State.READY
        seconds = (self._clock.monotonic_ns() - began_ns) / 1e9
        self._metrics.count_load(version.file.model, str(version.file.version), seconds)
        _log.info("model_ready", label=version.signature.label, seconds=round(seconds, 3))

    @contextlib.asynccontextmanager
    async def _take_slot(self, version: Version, limit: asyncio.Timeout) -> AsyncIterator[None]:
        """Wait for a slot. Then the limit of the load begins. A slow load gives its slot back."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        held = contextlib.ExitStack()
        held.callback(self._slots.release)

        def log_slow() -> None:
            after_s, limit_s = self.limits.slow_s, self._time_limit_s(version)
            label = version.signature.label
            _log.warning("model_load_slow", label=label, after_s=after_s, load_timeout_s=limit_s)
            held.close()  # others need not wait for it any longer

        slow = loop.call_later(self.limits.slow_s, log_slow)
        if not version.reason:  # given up before it began
            limit.reschedule(loop.time() + self._time_limit_s(version))
        try:
            yield
        finally:
            slow.cancel()
            held.close()

    def _time_limit_s(self, version: Version) -> float:
        own_ns = version.config.load_timeout
        return self.limits.timeout_s if own_ns is None else own_ns / 1e9

    def _timeout_reason(self, version: Version) -> str:
        limit_s = self._time_limit_s(version)
        return f"{version.file.path}: load and warm-up took longer than load_timeout, {limit_s:g} s"

    def _stop_as_failed(self, version: Version, reason: str) -> None:
        self._stop_workers(version)
        version.state, version.reason = State.FAILED, reason

    async def retire(self, version: Version, reason: str, *, grace_s: float) -> None:
        """Take a version down once what it has begun is answered, after `grace_s` at the latest."""
        model, number = version.file.model, version.file.version
        _log.info("model_unloaded", model=model, version=number, reason=reason)
        version.state = State.DRAINING
        self._retiring.add(version)
        if version.batcher is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await version.batcher.wait_drained()
            except TimeoutError:
                _log.warning("version_cut_short", label=version.signature.label, after_s=grace_s)
        workers = version.workers
        self.end(version)
        if not await run_in_thread(partial(self._join_all, workers, _THREADS_END_S)):
            _log.error("forward_never_returned", label=version.signature.label)
        machine.give_memory_back()

    def end(self, version: Version) -> None:
        """Refuse the requests that wait, and have the threads end: the version answers no more."""
        version.state = State.GONE
        if version.batcher is not None:
            version.batcher.close()
            self._metrics.count_unload(
                version.file.model, str(version.file.version), version.batcher
            )
        self._stop_workers(version)
        version.batcher = None
        self._retiring.discard(version)

    def close(self, versions: Iterable[Version], timeout_s: float) -> bool:
        """End `versions` and those that are retiring; return whether all threads ended.

        Threads of earlier versions count too: one may be in a forward that never returns.
        """
        for version in (*versions, *self._retiring):
            self.end(version)
        return self._join_all(list(self._leaving), timeout_s)

    def _stop_workers(self, version: Version) -> None:
        for worker in version.workers:
            worker.stop()
        self._leaving = {each: name for each, name in self._leaving.items() if not each.join(0)}
        self._leaving |= dict.fromkeys(version.workers, version.file.model)
        version.workers = []

    def _stuck_threads(self) -> dict[str, int]:
        """Return how many threads of each model go on after their end. Any thread may call it."""
        names = [name for each, name in list(self._leaving.items()) if not each.join(0)]
        return {name: names.count(name) for name in names}

    def _stuck_count(self, model: str) -> int:
        return self._stuck_threads().get(model, 0)

    def _join_all(self, workers: Sequence[Worker], timeout_s: float) -> bool:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        return all(
            worker.join(max(0.0, (deadline_ns - self._clock.monotonic_ns()) / 1e9))
            for worker in workers
        )

    # ------------------------------------------------------------ parts of a version

    async def _open_workers(self, version: Version, data: bytes) -> None:
        version.workers = [
            self._build_worker(version, partial(self._open_program, version, data, instance))
            for instance in range(version.config.instances)
        ]
        for opened in [_start_worker(worker) for worker in version.workers]:
            failure = await opened
            if failure is not None:
                raise failure

    def _open_program(self, version: Version, data: bytes, instance: int) -> Program:
        """Return the program, warm. Runs on a worker's thread; raises StartError."""
        if version.config.instances > self._cores:
            _log.warning("more_instances_than_cores", label=version.signature.label)
        share = max(1, self._cores // version.config.instances)
        self._runtime.use_threads(self._intra_op or share)
        return open_program(
            self._runtime,
            version.signature,
            version.config,
            data,
            source=version.file.path,
            instance=instance,
        )

    def _build_worker(self, version: Version, opening: partial[Program]) -> Worker:
        return Worker(
            signature=version.signature,
            open_program=opening,
            clock=self._clock,
            post=asyncio.get_running_loop().call_soon_threadsafe,
        )

    def _build_batcher(self, version: Version) -> Batcher:
        batcher = Batcher(
            label=version.signature.label,
            limits=QueueLimits.of(version.config),
            workers=version.workers,
            clock=self._clock,
            timer=self._timer,
            statistics=version.statistics,
        )
        key = (version.file.model, str(version.file.version))
        self._metrics.watch_queue(*key, batcher)
        for worker in version.workers:
            self._metrics.add_memory(*key, worker.device, worker.nbytes)
        return batcher


def _start_worker(worker: Worker) -> asyncio.Future[Exception | None]:
    """Start the worker; its future is None once it is warm, or else the reason why it can't run."""
    opened: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def resolve(failure: Exception | None) -> None:
        if not opened.done():
            opened.set_result(failure)

    worker.start(resolve)
    return opened


def _raise_unexpected(done: Iterable[asyncio.Task[None]]) -> None:
    """Raise what a load raised, except a StartError: its version keeps that."""
    for each in done:
        error = each.exception()
        if error is not None and not isinstance(error, StartError):
            raise error


async def _cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and return once they ended."""
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

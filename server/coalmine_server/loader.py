"""One version, from its file to READY and from there to GONE: bytes, threads, warm-up, memory."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from coalmine import memory
from coalmine.clock import Clock
from coalmine.thread import in_thread
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.timers import Timer
from coalmine_server.batching.waiting import Limits
from coalmine_server.batching.worker import Worker
from coalmine_server.figures.metrics import Metrics
from coalmine_server.registry import State, Version
from coalmine_server.repository import Model, VersionFile
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Signature

_log = structlog.get_logger(__name__)

_THREADS_END_S: Final = 5.0


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
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._timer = timer
        self._metrics = metrics
        self._cores = cores
        self._intra_op = intra_op
        self._retiring: set[Version] = set()
        self._leaving: list[Worker] = []  # told to end; those that did leave with the next

    def version(self, model: Model, file: VersionFile) -> Version:
        """Return a version that is LOADING."""
        return Version(
            file=file,
            config=model.config,
            signature=Signature.of(model.name, file.version, model.config),
            metrics=self._metrics.of_version(model.name, str(file.version)),
        )

    async def load(self, version: Version) -> None:
        """Make a version READY. Raises StartError, with nothing of it left running."""
        began_ns = self._clock.monotonic_ns()
        try:
            data = await in_thread(version.file.read)
            await self._open(version, data)
        except BaseException:
            self._stop(version)
            raise
        version.batcher = self._batcher(version)
        version.state = State.READY
        seconds = (self._clock.monotonic_ns() - began_ns) / 1e9
        self._metrics.loaded(version.file.model, str(version.file.version), seconds)
        _log.info("model_ready", label=version.signature.label, seconds=round(seconds, 3))

    async def retire(self, version: Version, *, grace_s: float) -> None:
        """Take a version down once what it has begun is answered, after `grace_s` at the latest."""
        version.state = State.DRAINING
        self._retiring.add(version)
        if version.batcher is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await version.batcher.drained()
            except TimeoutError:
                _log.warning("version_cut_short", label=version.signature.label, after_s=grace_s)
        workers = version.workers
        self.end(version)
        if not await in_thread(partial(self._all_ended, workers, _THREADS_END_S)):
            _log.error("forward_never_returned", label=version.signature.label)
        memory.give_back()

    def end(self, version: Version) -> None:
        """Turn away what waits and tell the threads to end; the version answers no more."""
        version.state = State.GONE
        if version.batcher is not None:
            version.batcher.close()
            self._metrics.unloaded(version.file.model, str(version.file.version), version.batcher)
        self._stop(version)
        version.batcher = None
        self._retiring.discard(version)

    def close(self, versions: Iterable[Version], timeout_s: float) -> bool:
        """End `versions` and those that are taken down so far; return whether all threads ended.

        Also those of versions that went before, in whose forward they may be caught for ever.
        """
        for version in (*versions, *self._retiring):
            self.end(version)
        return self._all_ended(self._leaving, timeout_s)

    def _stop(self, version: Version) -> None:
        for worker in version.workers:
            worker.stop()
        still_there = [each for each in self._leaving if not each.ended(0)]
        self._leaving = [*still_there, *version.workers]
        version.workers = []

    def _all_ended(self, workers: Sequence[Worker], timeout_s: float) -> bool:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        return all(
            worker.ended(max(0.0, (deadline_ns - self._clock.monotonic_ns()) / 1e9))
            for worker in workers
        )

    # ------------------------------------------------------------ parts of a version

    async def _open(self, version: Version, data: bytes) -> None:
        version.workers = [
            self._worker(version, partial(self._open_program, version, data, instance))
            for instance in range(version.config.instances)
        ]
        for opened in [_opened(worker) for worker in version.workers]:
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

    def _worker(self, version: Version, opening: partial[Program]) -> Worker:
        return Worker(
            signature=version.signature,
            open_program=opening,
            clock=self._clock,
            post=asyncio.get_running_loop().call_soon_threadsafe,
        )

    def _batcher(self, version: Version) -> Batcher:
        batcher = Batcher(
            label=version.signature.label,
            limits=Limits.of(version.config),
            workers=version.workers,
            clock=self._clock,
            timer=self._timer,
            metrics=version.metrics,
        )
        key = (version.file.model, str(version.file.version))
        self._metrics.watch_queue(*key, batcher)
        for worker in version.workers:
            self._metrics.takes_memory(*key, worker.device, worker.nbytes)
        return batcher


def _opened(worker: Worker) -> asyncio.Future[Exception | None]:
    """Start the worker; return what will be None when it is warm, else why it can't run."""
    opened: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def settle(failure: Exception | None) -> None:
        if not opened.done():
            opened.set_result(failure)

    worker.start(settle)
    return opened

"""Live models: LOADING, READY, DRAINING, GONE. A version is READY when every worker is warm."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine.errors import NotFound, Unavailable
from coalmine_server.batcher import Batcher, Limits, Timer
from coalmine_server.config import ModelConfig
from coalmine_server.metrics import Metrics, VersionMetrics
from coalmine_server.repository import Model, VersionFile
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Signature
from coalmine_server.worker import Worker

_log = structlog.get_logger(__name__)

_NEWEST: Final = ""


class State(StrEnum):
    """Where a version is in its life."""

    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    GONE = "GONE"


@dataclass(slots=True, eq=False)
class Version:
    """One version that is or was to be served; it has a batcher from READY on."""

    file: VersionFile
    config: ModelConfig
    signature: Signature
    metrics: VersionMetrics
    state: State = State.LOADING
    batcher: Batcher | None = None
    workers: list[Worker] = field(default_factory=list)

    def ready(self) -> Batcher:
        """Return the way to its workers. Raises Unavailable."""
        if self.state is not State.READY or self.batcher is None:
            raise Unavailable(f"{self.signature.label} is {self.state}, not READY")
        return self.batcher


class Registry:
    """All versions by model and number; the outside world comes in by constructor."""

    def __init__(
        self,
        models: Sequence[Model],
        *,
        runtime: Runtime,
        clock: Clock,
        timer: Timer,
        metrics: Metrics,
        cores: int,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._timer = timer
        self._metrics = metrics
        self._cores = cores
        self._is_open = False
        self._models = {model.name: self._versions_of(model) for model in models}

    # ------------------------------------------------------------ questions

    @property
    def is_ready(self) -> bool:
        """Whether every version is READY."""
        return self._is_open and all(each.state is State.READY for each in self.versions())

    @property
    def names(self) -> list[str]:
        """The models' names, in order."""
        return list(self._models)

    def versions(self, name: str | None = None) -> Iterator[Version]:
        """Return the versions of one model, or of all, in order. Raises NotFound."""
        for each in [name] if name is not None else self.names:
            yield from (self._model(each)[key] for key in self._model(each) if key != _NEWEST)

    def find(self, name: str, version: str) -> Version:
        """Return a version in whatever state; an empty one is the newest. Raises NotFound."""
        versions = self._model(name)
        found = versions.get(version)
        if found is None:
            served = ", ".join(key for key in versions if key != _NEWEST)
            raise NotFound(f"model '{name}' has no version '{version}', only {served}")
        return found

    def _model(self, name: str) -> dict[str, Version]:
        try:
            return self._models[name]
        except KeyError:
            raise NotFound(f"model '{name}' is unknown") from None

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        """Load and warm every version. Raises StartError for the first that can't be served."""
        for version in self.versions():
            await self._load(version)
        self._is_open = True

    def drain(self) -> None:
        """Be ready no more; what is in flight goes on."""
        self._is_open = False
        for version in self.versions():
            if version.state is State.READY:
                version.state = State.DRAINING

    def close(self, *, timeout_s: float) -> bool:
        """Turn away what waits and end the threads; return whether all ended in time."""
        for version in self.versions():
            version.state = State.GONE
            if version.batcher is not None:
                version.batcher.close()
            for worker in version.workers:
                worker.stop()
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        return all(
            worker.ended(max(0.0, (deadline_ns - self._clock.monotonic_ns()) / 1e9))
            for version in self.versions()
            for worker in version.workers
        )

    # ------------------------------------------------------------ loading

    def _versions_of(self, model: Model) -> dict[str, Version]:
        found = {str(each.version): self._version(model, each) for each in model.versions}
        return {**found, _NEWEST: found[str(model.versions[-1].version)]}

    def _version(self, model: Model, file: VersionFile) -> Version:
        return Version(
            file=file,
            config=model.config,
            signature=Signature.of(model.name, file.version, model.config),
            metrics=self._metrics.of_version(model.name, str(file.version)),
        )

    async def _load(self, version: Version) -> None:
        began_ns = self._clock.monotonic_ns()
        data = await asyncio.to_thread(version.file.read)
        opening = partial(self._open_program, version, data)
        version.workers = [self._worker(version, opening) for _ in range(version.config.instances)]
        for opened in [_opened(worker) for worker in version.workers]:
            failure = await opened
            if failure is not None:
                raise failure
        version.batcher = self._batcher(version)
        version.state = State.READY
        seconds = (self._clock.monotonic_ns() - began_ns) / 1e9
        _log.info("model_ready", label=version.signature.label, seconds=round(seconds, 3))

    def _open_program(self, version: Version, data: bytes) -> Program:
        """Return the program, warm. Runs on a worker's thread; raises StartError."""
        if version.config.instances > self._cores:
            _log.warning("more_instances_than_cores", label=version.signature.label)
        self._runtime.use_threads(max(1, self._cores // version.config.instances))
        return open_program(
            self._runtime, version.signature, version.config, data, source=version.file.path
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
        file = version.file
        self._metrics.watch_queue(file.model, str(file.version), lambda: batcher.queue_rows)
        return batcher


def _opened(worker: Worker) -> asyncio.Future[Exception | None]:
    """Start the worker; return what will be None when it is warm, else why it can't run."""
    opened: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def settle(failure: Exception | None) -> None:
        if not opened.done():
            opened.set_result(failure)

    worker.start(settle)
    return opened

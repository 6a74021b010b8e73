"""Changes of what is served: a version is read, loaded, swapped in, and the old one drained."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import structlog

from coalmine.errors import (
    InvalidRequest,
    LoadFailed,
    NotFound,
    Overloaded,
    StartError,
    Unavailable,
)
from coalmine.process.blocking_thread import run_in_thread
from coalmine_server.figures.metrics import Metrics
from coalmine_server.loader import Loader
from coalmine_server.registry import Registry, ServedModel, State, Version
from coalmine_server.repository import Model, Repository, is_name

_log = structlog.get_logger(__name__)

_CHANGES_MAX: Final = 64

NotifyServing = Callable[[str, bool], Awaitable[None]]


class ModelControl:
    """Carries out the changes of what is served, one at a time for each model.

    `notify` is called with a model's name, and whether it serves, when that may have changed.
    """

    def __init__(
        self,
        repository: Repository,
        registry: Registry,
        loader: Loader,
        metrics: Metrics,
        *,
        notify: NotifyServing,
        grace_s: float,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._loader = loader
        self._metrics = metrics
        self._notify_serving = notify
        self._grace_s = grace_s
        self._locks: dict[str, asyncio.Lock] = {}  # at most one for each model there ever was
        self._running: set[asyncio.Task[Exception | None]] = set()
        self._opening: list[asyncio.Task[None]] = []
        self._tasks: asyncio.TaskGroup | None = None

    # ------------------------------------------------------------ the start and the end

    def register_models(self, *, lenient: bool) -> None:
        """Register every model as LOADING. Raises StartError for the first that is wrong.

        `lenient`: a bad model is kept with the reason, and none at all is no error.
        """
        self._registry.is_lenient = lenient
        for name in self._repository.names():
            try:
                model = self._repository.model(name)
                self._registry.put(name, ServedModel.of(model, self._versions_of(model)))
            except StartError as error:
                if not lenient:
                    raise
                self._record_failure(name, error)
        if not lenient and not self._registry.names:
            raise StartError(self._repository.empty_error_text)

    async def open(
        self, *, lenient: bool, unloaded: Collection[str] = (), waits_for_all_models: bool = False
    ) -> None:
        """Load and warm every version, but for the models that are to stay unloaded.

        Raises StartError for the first that can't be served. `lenient`: return once each is READY,
        FAILED, or slow; what is slow goes on loading, unless all are waited for.
        """
        for name in self._registry.names:
            await self._notify_of_model(name)
        for name in unloaded:
            if name in self._registry.names:
                await self._unload(name)
        names = [each for each in self._registry.names if each not in unloaded]
        opening = self._open_model_leniently if lenient else self._open_model
        self._opening = [asyncio.create_task(opening(each)) for each in names]
        try:
            is_patient = waits_for_all_models or not lenient
            await self._wait_opened(timeout_s=None if is_patient else self._loader.limits.slow_s)
        except BaseException:
            await self._give_up_opening()
            raise
        self._registry.is_open = True
        for name in self._registry.names:
            await self._notify_of_model(name)

    async def _wait_opened(self, *, timeout_s: float | None) -> None:
        """Wait until all is loaded, `timeout_s` at most; raise the first error."""
        if not self._opening:
            return
        done, _ = await asyncio.wait(
            self._opening, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION
        )
        for each in [task for task in self._opening if task in done]:
            each.result()

    async def _open_model(self, name: str) -> None:
        async with self._lock_of(name):
            served_model = self._registry.served_model(name)

            async def raise_if_failed() -> None:
                _raise_first_failure(served_model.versions)

            await self._loader.load_all(served_model.versions, raise_if_failed)
            self._registry.put(name, served_model.as_replacement_of(None))

    async def _open_model_leniently(self, name: str) -> None:
        async with self._lock_of(name):
            try:
                served_model = self._registry.served_model(name)
                await self._load_and_serve(name, served_model, served_model.versions)
            except StartError as error:
                self._record_failure(name, error)
            await self._notify_of_model(name)

    async def _give_up_opening(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def accept_changes(self) -> AsyncIterator[None]:
        """Carry out changes within this block; those that run at its end are given up."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                for task in self._running:
                    task.cancel()
                await self._give_up_opening()

    def close(self, *, timeout_s: float) -> bool:
        """End every version; return whether all threads ended in time."""
        versions = [*self._registry.versions(), *self._registry.all_incoming()]
        return self._loader.close(versions, timeout_s)

    # ------------------------------------------------------------ changes

    async def load(self, name: str) -> None:
        """Make a model what its folder says; what runs as it says already is left alone.

        Raises NotFound, or LoadFailed: then the model is served as it was before. A caller that
        goes away leaves no change half done.
        """
        _check_name(name)
        await self.carry_out(self._load(name))

    async def unload(self, name: str) -> None:
        """Serve a model no more, once what it has begun is answered. Raises NotFound."""
        _check_name(name)
        await self.carry_out(self._unload(name))

    async def remove(self, name: str) -> None:
        """Serve a model no more, and forget it: its folder is gone."""
        await self.carry_out(self._remove(name))

    async def carry_out(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change to its end, also where the caller goes away meanwhile.

        Raises Unavailable where the server starts or ends, Overloaded for one change too many.
        """
        if self._tasks is None:
            change.close()
            raise Unavailable("the server starts or ends: nothing can be changed now")
        if len(self._running) >= _CHANGES_MAX:
            change.close()
            raise Overloaded(f"{_CHANGES_MAX} changes are under way, the most there may be")
        task = self._tasks.create_task(_run_catching(change))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task})  # a caller that goes away ends the wait, not the change
        if task.cancelled():
            raise Unavailable("the server ends: the change was given up")
        error = task.result()
        if error is not None:
            raise error

    async def _load(self, name: str) -> None:
        if not await run_in_thread(partial(self._repository.has_model, name)):
            raise NotFound(f"model '{name}' is not in the repository")
        async with self._lock_of(name):
            try:
                model = await run_in_thread(partial(self._repository.model, name))
                versions = self._versions_of(model)
                fresh = [each for each in versions if each.state is State.LOADING]
                await self._load_and_serve(name, ServedModel.of(model, versions), fresh)
            except StartError as error:
                self._record_failure(name, error)
                raise LoadFailed(f"model '{name}': {error}") from None
            finally:
                await self._notify_of_model(name)

    async def _load_and_serve(
        self, name: str, served_model: ServedModel, fresh: Sequence[Version]
    ) -> None:
        """Load new versions, serve them, and then retire those that they replace.

        A version that loads is served, also where another one fails. While one fails, only versions
        that are replaced go. Raises StartError with why one failed.
        """
        if any(map(_is_ready, self._served_versions(name))):
            self._registry.set_incoming(name, fresh)
        else:
            self._registry.put(name, served_model)
        await self._loader.load_all(fresh, partial(self._serve_ready, name, served_model))
        await self._serve_ready(name, served_model)
        _raise_first_failure(served_model.versions)

    async def _serve_ready(self, name: str, wanted: ServedModel) -> None:
        """Serve the READY versions of a model, and retire those that it no longer serves."""
        before = self._registry.served_model(name) if name in self._registry.names else None
        served_model = wanted.as_replacement_of(before)
        self._registry.put(name, served_model)
        self._registry.set_incoming(name, [each for each in wanted.versions if not each.is_ready])
        await self._notify_of_model(name)
        for version in wanted.versions:
            version.config = wanted.config
        served = () if before is None else before.versions
        gone = [each for each in served if each.is_ready and each not in served_model.versions]
        await self._retire(gone, lambda version: _retire_reason(version, wanted))

    async def _unload(self, name: str) -> None:
        self._registry.served_model(name)  # or NotFound, before there is a lock for it
        self._give_up_loads(name, "unloaded")
        async with self._lock_of(name):
            await self._take_down(name, "unloaded")

    async def _remove(self, name: str) -> None:
        self._give_up_loads(name, "removed from the repository")
        async with self._lock_of(name):
            if name in self._registry.names:  # not where it could never be served
                await self._take_down(name, "removed from the repository")
            self._registry.forget(name)

    def _give_up_loads(self, name: str, reason: str) -> None:
        """End the loads of a model that are under way: one of them may hang."""
        for each in (*self._served_versions(name), *self._registry.incoming(name)):
            self._loader.give_up_load(each, reason)

    async def _take_down(self, name: str, reason: str) -> None:
        versions = self._registry.served_model(name).versions
        await self._retire(versions, lambda _: reason)
        for each in versions:
            each.reason = reason
        self._registry.set_incoming(name, ())
        await self._notify_of_model(name)

    async def _retire(self, versions: Sequence[Version], why: Callable[[Version], str]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in versions:
                tasks.create_task(self._loader.retire(each, why(each), grace_s=self._grace_s))

    async def _notify_of_model(self, name: str) -> None:
        await self._notify_serving(name, self._registry.serves(name))

    # ------------------------------------------------------------ versions and their states

    def _served_versions(self, name: str) -> tuple[Version, ...]:
        return self._registry.served_model(name).versions if name in self._registry.names else ()

    def _versions_of(self, model: Model) -> list[Version]:
        """Return a model's versions: those that run as it says, and new ones that are LOADING."""
        served = self._served_versions(model.name)
        running = {each.file.version: each for each in served if each.runs_as(model)}
        new = self._loader.new_version
        return [running.get(each.version) or new(model, each) for each in model.versions]

    def _record_failure(self, name: str, error: StartError) -> None:
        self._registry.record_failure(name, str(error))
        self._metrics.count_failed_load(name)
        _log.error("load_failed", model=name, reason=str(error))

    def _lock_of(self, name: str) -> asyncio.Lock:
        """Return the lock of a model that is served or in the repository."""
        return self._locks.setdefault(name, asyncio.Lock())


def _is_ready(version: Version) -> bool:
    return version.is_ready


def _retire_reason(version: Version, wanted: ServedModel) -> str:
    numbers = [each.file.version for each in wanted.versions]
    if version.file.version in numbers:
        return "replaced: its file or its settings are others"
    return f"'versions' in config.yaml serves only {', '.join(map(str, numbers))} of what is there"


def _raise_first_failure(versions: Sequence[Version]) -> None:
    """Raise StartError with why the first of the FAILED ones failed, and how many more did."""
    failed = [each.reason for each in versions if each.state is State.FAILED]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise StartError(f"{failed[0]}{more}")


def _check_name(name: str) -> None:
    if not is_name(name):
        raise InvalidRequest(f"'{name}' is not a model's name: A-Z, a-z, 0-9, . _ -, no dot first")


async def _run_catching(change: Coroutine[Any, Any, None]) -> Exception | None:
    """Make a change and return what it raised: raised here, that would end all other changes."""
    try:
        await change
    except Exception as error:  # noqa: BLE001 - handed to the caller
        return error
    return None

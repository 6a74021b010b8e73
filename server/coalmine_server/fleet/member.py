"""A process as the only one of its server, or as one of several workers."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol

import structlog

from coalmine.errors import CoalmineError
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceServicer as Servicer
from coalmine.process.blocking_thread import run_in_thread
from coalmine.process.machine import usable_cores
from coalmine_server.extensions import ModelLoading
from coalmine_server.fleet.load_record import LoadEntries, LoadRecord, changes_since
from coalmine_server.fleet.peers import (
    FleetLoading,
    FleetOverview,
    LocalLoading,
    PeerWorkers,
    answer_peers,
)
from coalmine_server.fleet.worker_slot import WorkerSlot
from coalmine_server.overview import Overview
from coalmine_server.poll import RepositoryFollower

_log = structlog.get_logger(__name__)


class LocalControl(LocalLoading, RepositoryFollower, Protocol):
    """Changes the models of this process alone."""


class FleetMembership(Protocol):
    """What depends on whether a process is the only one of its server."""

    @property
    def cores(self) -> int:
        """How many cores it may use."""
        ...

    @property
    def listens_early(self) -> bool:
        """Whether it listens before its models are there.

        One of several workers doesn't: it would get calls that the others can answer.
        """
        ...

    @property
    def waits_for_all_models(self) -> bool:
        """Whether it is ready only once all models are loaded: another process serves meanwhile."""
        ...

    def read_unloaded_models(self) -> Collection[str]:
        """Read which models stay unloaded at the start."""
        ...

    def loading_of(self, control: LocalControl) -> ModelLoading:
        """Return where callers load and unload models."""
        ...

    def follower_of(self, control: LocalControl) -> RepositoryFollower:
        """Return where changes on the disk go."""
        ...

    def overview_with(self, own: Overview) -> Overview:
        """Return where the index and the statistics come from."""
        ...

    def join(self, control: LocalControl, servicer: Servicer) -> AbstractAsyncContextManager[None]:
        """Be one of the workers within this block, in the state of the others.

        `servicer` answers their calls, for this process alone.
        """
        ...


class SoleProcess:
    """The only process of its server."""

    listens_early = True
    waits_for_all_models = False

    def __init__(self, cores: Callable[[], int] = usable_cores) -> None:
        self.cores = cores()

    def read_unloaded_models(self) -> Collection[str]:
        """Return none: a new start serves all models."""
        return ()

    def loading_of(self, control: LocalControl) -> ModelLoading:
        """Return `control`."""
        return control

    def follower_of(self, control: LocalControl) -> RepositoryFollower:
        """Return `control`."""
        return control

    def overview_with(self, own: Overview) -> Overview:
        """Return `own`."""
        return own

    @asynccontextmanager
    async def join(self, control: LocalControl, servicer: Servicer) -> AsyncIterator[None]:  # noqa: ARG002 - nobody asks
        """Yield at once."""
        yield


class FleetMember:
    """One worker of several."""

    listens_early: Final = False

    def __init__(self, slot: WorkerSlot) -> None:
        self.cores = slot.cores
        self._slot = slot
        self._peers = PeerWorkers(slot)
        self._record = LoadRecord(slot.folder)
        self._known: LoadEntries = {}

    @property
    def waits_for_all_models(self) -> bool:
        """Whether it replaces a worker that serves."""
        return self._slot.is_taken_by_another()

    def read_unloaded_models(self) -> Collection[str]:
        """Read which models were unloaded by RPC; `join` catches up with later changes."""
        self._known = self._record.read()
        return {name for name, entry in self._known.items() if entry.is_unloaded}

    def loading_of(self, control: LocalControl) -> ModelLoading:
        """Return what loads and unloads in all workers."""
        return FleetLoading(control, self._peers, self._record, self._slot.index)

    def follower_of(self, control: LocalControl) -> RepositoryFollower:
        """Return what changes this worker, and records changes for workers that start later."""
        return RecordingFollower(control, self._record)

    def overview_with(self, own: Overview) -> Overview:
        """Return the overview of all workers."""
        return FleetOverview(own, self._peers, self._slot.index)

    @asynccontextmanager
    async def join(self, control: LocalControl, servicer: Servicer) -> AsyncIterator[None]:
        """Answer the others, and make the changes that they made while this one started."""
        async with answer_peers(self._slot, servicer):
            await self._follow_missed_changes(control)
            yield

    async def _follow_missed_changes(self, control: LocalControl) -> None:
        for name, entry in changes_since(
            self._known, await run_in_thread(self._record.read)
        ).items():
            try:
                await (control.unload(name) if entry.is_unloaded else control.load(name))
            except CoalmineError as error:
                _log.warning("change_not_followed", model=name, reason=str(error))


class RecordingFollower:
    """Follows the disk, and records that a model which was unloaded is loaded again.

    Every worker polls the disk itself. The record is for workers that start later.
    """

    def __init__(self, control: RepositoryFollower, record: LoadRecord) -> None:
        self._control = control
        self._record = record

    async def load(self, name: str) -> None:
        """Make a model what its folder says."""
        await self._control.load(name)
        known = (await run_in_thread(self._record.read)).get(name)
        if known is not None and known.is_unloaded:
            await run_in_thread(partial(self._record.record_change, name, is_unloaded=False))

    async def remove(self, name: str) -> None:
        """Serve a model no more, and forget it."""
        await self._control.remove(name)

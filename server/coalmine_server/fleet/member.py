"""What a process is beside others of the same server: nothing, or one of several workers."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol

import structlog

from coalmine.errors import CoalmineError
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceServicer as Servicer
from coalmine.process.blocking_thread import in_thread
from coalmine.process.machine import cores
from coalmine_server.extensions import Changes
from coalmine_server.fleet.load_record import Entries, LoadRecord, missed
from coalmine_server.fleet.peers import CarriesOut, Everywhere, OfAll, Peers, hearing
from coalmine_server.fleet.worker_slot import WorkerSlot
from coalmine_server.overview import Overview
from coalmine_server.poll import RepositoryChanges as Followed

_log = structlog.get_logger(__name__)


class MemberControl(CarriesOut, Followed, Protocol):
    """What changes the models of this process."""


class Membership(Protocol):
    """How a process stands to the others."""

    @property
    def cores(self) -> int:
        """How many cores it may use."""
        ...

    @property
    def listens_early(self) -> bool:
        """Whether it listens before its models are there.

        Not where others answer at the same port: callers would come to the one that can't.
        """
        ...

    @property
    def waits_for_all(self) -> bool:
        """Whether it is ready only once no model loads any more: another serves them meanwhile."""
        ...

    def unloaded(self) -> Collection[str]:
        """Return the models that stay unloaded at the start."""
        ...

    def changes(self, control: MemberControl) -> Changes:
        """Return what a caller's changes go to."""
        ...

    def followed(self, control: MemberControl) -> Followed:
        """Return what changes on the disk go to."""
        ...

    def overview(self, own: Overview) -> Overview:
        """Return where the index and the statistics come from."""
        ...

    def joined(
        self, control: MemberControl, servicer: Servicer
    ) -> AbstractAsyncContextManager[None]:
        """Be one of the others within this block, in the state that they are in.

        `servicer` answers them, of this process alone.
        """
        ...


class Alone:
    """The only process of its server."""

    listens_early = True
    waits_for_all = False

    def __init__(self, cores: Callable[[], int] = cores) -> None:
        self.cores = cores()

    def unloaded(self) -> Collection[str]:
        """Return nothing: a new start serves all that there is."""
        return ()

    def changes(self, control: MemberControl) -> Changes:
        """Return `control`."""
        return control

    def followed(self, control: MemberControl) -> Followed:
        """Return `control`."""
        return control

    def overview(self, own: Overview) -> Overview:
        """Return `own`."""
        return own

    @asynccontextmanager
    async def joined(self, control: MemberControl, servicer: Servicer) -> AsyncIterator[None]:  # noqa: ARG002 - nobody asks
        """Yield at once."""
        yield


class Member:
    """One worker of several."""

    listens_early: Final = False

    def __init__(self, seat: WorkerSlot) -> None:
        self.cores = seat.cores
        self._seat = seat
        self._peers = Peers(seat)
        self._ledger = LoadRecord(seat.folder)
        self._known: Entries = {}

    @property
    def waits_for_all(self) -> bool:
        """Whether it takes the place of a worker that serves."""
        return self._seat.is_held()

    def unloaded(self) -> Collection[str]:
        """Return the models that were unloaded by RPC; later changes are caught up with."""
        self._known = self._ledger.read()
        return {name for name, entry in self._known.items() if entry.is_unloaded}

    def changes(self, control: MemberControl) -> Changes:
        """Return what changes all workers."""
        return Everywhere(control, self._peers, self._ledger, self._seat.index)

    def followed(self, control: MemberControl) -> Followed:
        """Return what makes this worker's changes, and has later ones start with them."""
        return Noted(control, self._ledger)

    def overview(self, own: Overview) -> Overview:
        """Return what sums up all workers."""
        return OfAll(own, self._peers, self._seat.index)

    @asynccontextmanager
    async def joined(self, control: MemberControl, servicer: Servicer) -> AsyncIterator[None]:
        """Answer the others, and catch up with what they changed while this one started."""
        async with hearing(self._seat, servicer):
            await self._catch_up(control)
            yield

    async def _catch_up(self, control: MemberControl) -> None:
        for name, entry in missed(self._known, await in_thread(self._ledger.read)).items():
            try:
                await (control.unload(name) if entry.is_unloaded else control.load(name))
            except CoalmineError as error:
                _log.warning("change_not_followed", model=name, reason=str(error))


class Noted:
    """Changes that follow the disk: a model that comes back so is unloaded no more.

    Every worker looks at the disk by itself; only what starts later must be told.
    """

    def __init__(self, control: Followed, ledger: LoadRecord) -> None:
        self._control = control
        self._ledger = ledger

    async def load(self, name: str) -> None:
        """Make a model what its folder says."""
        await self._control.load(name)
        known = (await in_thread(self._ledger.read)).get(name)
        if known is not None and known.is_unloaded:
            await in_thread(partial(self._ledger.note, name, is_unloaded=False))

    async def remove(self, name: str) -> None:
        """Serve and know a model no more."""
        await self._control.remove(name)

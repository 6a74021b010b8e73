"""The addresses of one backend, kept connected, watched, and closed when they are gone."""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Protocol

import structlog

from coalmine_router.backends.address import Address
from coalmine_router.backends.address_set import ADDRESSES_MAX, AddressSet
from coalmine_router.backends.backend_access import BackendAccess
from coalmine_router.backends.dns_watch import DnsWatch
from coalmine_router.backends.health_watch import HealthWatch
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.model_readiness import ModelHealthWatch
from coalmine_router.backends.resolve import Resolves
from coalmine_router.backends.targets import Lookup
from coalmine_router.change_signal import ChangeSignal
from coalmine_router.metadata import Pair

_log = structlog.get_logger(__name__)


class Renews(Protocol):
    """A chooser among a pool's addresses."""

    @property
    def model(self) -> str:
        """The model that it calls; "" for any or none."""
        ...

    def refresh_choices(self) -> None:
        """Read the pool's addresses again: they have changed."""
        ...


@dataclass(frozen=True, slots=True)
class PoolSurroundings:
    """The outside world of a pool."""

    rng: random.Random
    resolver: Resolves
    changes: ChangeSignal
    intervals: Intervals


class EndpointPool:
    """One backend's addresses. `run` keeps them connected, and ends after `retire`."""

    def __init__(self, access: BackendAccess, world: PoolSurroundings) -> None:
        self.name = access.backend.name
        self.access = access
        self.known: tuple[Address, ...] = ()
        self.available: tuple[Address, ...] = ()
        self.token_metadata: tuple[Pair, ...] = access.token_metadata
        self.users: list[Renews] = []
        self._world = world
        self._tasks: asyncio.TaskGroup | None = None
        self._health_watches: dict[Address, asyncio.Task[None]] = {}
        self._dns_watches: dict[Lookup, tuple[DnsWatch, asyncio.Task[None]]] = {}
        self._gone: list[Address] = []
        self._is_retired = asyncio.Event()
        self._addresses = AddressSet(access, self._note_state_change)
        self._update_watches()

    # ------------------------------------------------------------ what is known

    @property
    def wanted(self) -> tuple[Address, ...]:
        """The addresses that its targets stand for now."""
        return tuple(self._addresses.wanted.values())

    @property
    def models(self) -> frozenset[str]:
        """The models that its users call."""
        return frozenset(each.model for each in self.users if each.model)

    @property
    def is_warm(self) -> bool:
        """Whether an address can be called, or the reason why none can is known."""
        return bool(self.available) or self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether each name and address is either reached or known to be out of reach."""
        return self._addresses.is_settled

    @property
    def has_names(self) -> bool:
        """Whether lookups may bring other addresses."""
        return bool(self._addresses.lookups)

    @property
    def troubles(self) -> list[str]:
        """The troubles with its files and names, a line each."""
        failed = self._addresses.failed.items()
        lines = [f"can't be called: {self.access.trouble}"] if self.access.trouble else []
        lines += [f"{lookup}: can't be looked up: {why}" for lookup, why in failed]
        if self._addresses.left_out:
            lines.append(f"{self._addresses.left_out} addresses over {ADDRESSES_MAX} are left out")
        return lines

    # ------------------------------------------------------------ what happens

    def use_access(self, access: BackendAccess) -> None:
        """Use another definition of the backend, under the same name."""
        self.access = access
        self._addresses.use_access(access)
        self._update_watches()

    def look_up_soon(self) -> None:
        """Look up its names soon."""
        for watch, _ in self._dns_watches.values():
            watch.look_up_soon()

    def retire(self) -> None:
        """Offer no address any more. `run` ends once the calls in flight have ended."""
        self._is_retired.set()
        for address in self._addresses.remove_all():
            self._remove(address)
        self._update_watches()

    async def run(self) -> None:
        """Keep the addresses connected, until cancelled or retired."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                watching = tasks.create_task(self._watch_files())
                for address in self._gone:
                    tasks.create_task(self._close_when_idle(address))
                self._update_watches()
                await self._is_retired.wait()
                for each in (watching, *(task for _, task in self._dns_watches.values())):
                    each.cancel()
        finally:
            self._tasks = None

    async def close(self) -> None:
        """Close all channels; calls under way are cancelled."""
        for address in (*self.known, *self._gone):
            await address.channel.close(None)

    # ------------------------------------------------------------ how

    def _update_watches(self) -> None:
        """Bring watches, lookups and choosers into line with the addresses and their states."""
        for address in self._addresses.remove_leavers():
            self._remove(address)
        self.known, self.available = self._addresses.known, self._addresses.available
        self.token_metadata = self.access.token_metadata
        if self._tasks is not None and not self._is_retired.is_set():
            self._watch_names(self._tasks)
            self._watch_addresses(self._tasks)
        for user in self.users:
            user.refresh_choices()
        self._world.changes.wake_all()

    def _watch_addresses(self, tasks: asyncio.TaskGroup) -> None:
        for address in self.known:
            if address not in self._health_watches:
                self._health_watches[address] = tasks.create_task(self._health_watch(address).run())

    def _health_watch(self, address: Address) -> HealthWatch:
        world = self._world
        models = ModelHealthWatch(
            address,
            wanted=lambda: self.models,
            token_metadata=lambda: self.token_metadata,
            changes=world.changes,
            rng=world.rng,
            intervals=world.intervals,
        )
        return HealthWatch(address, lambda: self.token_metadata, world.rng, world.intervals, models)

    def _watch_names(self, tasks: asyncio.TaskGroup) -> None:
        for gone in self._dns_watches.keys() - set(self._addresses.lookups):
            self._dns_watches.pop(gone)[1].cancel()
        for lookup in self._addresses.lookups:
            if lookup not in self._dns_watches:
                watch = self._dns_watch(lookup)
                self._dns_watches[lookup] = watch, tasks.create_task(watch.run())

    def _dns_watch(self, lookup: Lookup) -> DnsWatch:
        world = self._world
        return DnsWatch(
            lookup, world.resolver, self._note_lookup, rng=world.rng, intervals=world.intervals
        )

    def _note_lookup(self, lookup: Lookup, found: list[str] | str) -> None:
        if not self._is_retired.is_set():
            self._addresses.note_lookup(lookup, found)
            self._update_watches()

    def _note_state_change(self) -> None:
        """Note that an address's state has changed. A lost address may have moved."""
        if not all(each.state.is_connected for each in self.known):
            self.look_up_soon()
        self._update_watches()

    def _remove(self, address: Address) -> None:
        address.retire()
        _log.info("address_left", backend=self.name, address=address.name)
        watching = self._health_watches.pop(address, None)
        if watching is not None:
            watching.cancel()
        self._gone.append(address)
        if self._tasks is not None:
            self._tasks.create_task(self._close_when_idle(address))

    async def _close_when_idle(self, address: Address) -> None:
        intervals = self._world.intervals
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(intervals.idle_max_s):
                # At least once: a request may have just chosen it, and not counted its call yet.
                await asyncio.sleep(intervals.idle_every_s)
                while address.outstanding:  # noqa: ASYNC110 - the counter sets no event
                    await asyncio.sleep(intervals.idle_every_s)
        self._gone.remove(address)
        await address.channel.close(None)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._world.intervals.files_every_s)
            access = self.access
            if not access.has_files:
                continue
            is_new, shows_new = await asyncio.to_thread(access.reread_files)
            if is_new and access is self.access:
                self._addresses.reopen_all()
            if is_new or shows_new:
                self._update_watches()

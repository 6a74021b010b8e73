"""All backends of one process: made, kept and closed as route tables say."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping

import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest, StartError
from coalmine_router import channels
from coalmine_router.backends.backend_access import BackendAccess, OpensChannel
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.backends.endpoint_pool import EndpointPool, PoolSurroundings
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.resolve import Resolves
from coalmine_router.backends.variant_endpoints import VariantEndpoints
from coalmine_router.change_signal import ChangeSignal
from coalmine_router.table import STABLE, Backend, RouteTable

_log = structlog.get_logger(__name__)


class Backends:
    """Pools by backend, endpoints by route and variant. They are connected while `run` runs.

    `is_lenient`: a backend whose files are wrong has no address, and the others go on.
    `may_lose_stable`: all addresses of stable may be ejected: no caller waits for the calls.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        resolver: Resolves,
        open_channel: OpensChannel = channels.open_channel,
        intervals: Intervals | None = None,
        rules: EjectionRules | None = None,
        is_lenient: bool = False,
        may_lose_stable: bool = False,
    ) -> None:
        self._clock = clock
        self._changes = ChangeSignal()
        self._world = PoolSurroundings(rng, resolver, self._changes, intervals or Intervals())
        self._open_channel = open_channel
        self._is_lenient = is_lenient
        self._may_lose_stable = may_lose_stable
        self._rules = rules or EjectionRules()
        self._pools: dict[str, EndpointPool] = {}
        self._retired: list[EndpointPool] = []
        self._endpoints: dict[tuple[str, str], VariantEndpoints] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ejection = asyncio.Event()

    # ------------------------------------------------------------ what a table needs

    def follow(self, table: RouteTable) -> None:
        """Make the pools and endpoints that `table` needs; keep those that stay.

        Where a backend's targets or files are wrong, it changes nothing and raises InvalidRequest.
        """
        accesses = self._load_changed_accesses(table)
        for name in self._pools.keys() - table.by_backend.keys():
            self._retire(self._pools.pop(name))
        for name, access in accesses.items():
            self._set_access(name, access)
        self._update_endpoints(table)
        self._changes.wake_all()

    def endpoints(self, route: str, variant: str) -> VariantEndpoints:
        """Return the endpoints of a variant of the table that was last followed."""
        return self._endpoints[route, variant]

    def find_endpoints(self, route: str, variant: str) -> VariantEndpoints | None:
        """Return the endpoints of a variant; None: the table that was last followed has none."""
        return self._endpoints.get((route, variant))

    def _load_changed_accesses(self, table: RouteTable) -> Mapping[str, BackendAccess]:
        """Return the access to the backends that are new or have changed."""
        found = {}
        for backend in table.backends:
            pool = self._pools.get(backend.name)
            if pool is None or pool.access.backend != backend:
                found[backend.name] = self._load_access(backend)
        return found

    def _load_access(self, backend: Backend) -> BackendAccess:
        try:
            access = BackendAccess(backend, self._open_channel, is_lenient=self._is_lenient)
        except StartError as error:
            raise InvalidRequest(f"backend '{backend.name}': {error}") from None
        if access.trouble:
            _log.error("backend_files_wrong", backend=backend.name, reason=access.trouble)
        return access

    def _set_access(self, name: str, access: BackendAccess) -> None:
        pool = self._pools.get(name)
        if pool is not None:
            pool.use_access(access)
            return
        pool = self._pools[name] = EndpointPool(access, self._world)
        if self._tasks is not None:
            self._tasks.create_task(pool.run())

    def _retire(self, pool: EndpointPool) -> None:
        pool.retire()
        if self._tasks is None:
            self._retired.append(pool)

    def _update_endpoints(self, table: RouteTable) -> None:
        """Make the endpoints of `table`; a variant keeps its own while its backend stays."""
        before, self._endpoints = self._endpoints, {}
        for route in table.routes:
            for variant in route.variants:
                at = route.name, variant.name
                model = variant.model or route.match.model
                kept = before.get(at)
                if kept is not None and kept.backend == variant.backend:
                    self._endpoints[at] = before.pop(at)
                    kept.set_model(model)
                else:
                    self._endpoints[at] = self._new_endpoints(
                        at, self._pools[variant.backend], model
                    )
        for gone in before.values():
            gone.retire()

    def _new_endpoints(
        self, at: tuple[str, str], pool: EndpointPool, model: str
    ) -> VariantEndpoints:
        return VariantEndpoints(
            "/".join(at),
            pool,
            clock=self._clock,
            chance=self._world.rng.random,
            rules=self._rules,
            on_ejection=self._ejection.set,
            has_stand_in=at[1] != STABLE or self._may_lose_stable,
            model=model,
        )

    # ------------------------------------------------------------ its life

    async def run(self) -> None:
        """Keep all pools connected, and readmit ejected addresses, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for pool in (*self._pools.values(), *self._retired):
                    tasks.create_task(pool.run())
                self._retired.clear()
                await self._readmit_ejected()
        finally:
            self._tasks = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run during the block, and close all channels after it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.run())
                try:
                    yield
                finally:
                    running.cancel()
        finally:
            await self.close()

    async def _readmit_ejected(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_readmission()):
                    await self._ejection.wait()
            self._ejection.clear()
            for endpoints in self._endpoints.values():
                endpoints.readmit()
            self._changes.wake_all()

    def _seconds_to_readmission(self) -> float | None:
        due = [
            endpoints.next_return_ns
            for endpoints in self._endpoints.values()
            if endpoints.next_return_ns is not None
        ]
        return max(0.0, (min(due) - self._clock.monotonic_ns()) / 1e9) if due else None

    async def wait_until_warm(self, timeout_s: float) -> None:
        """Wait until every backend has a connected address or a known trouble, or time is over."""
        await self.wait_until(lambda: all(pool.is_warm for pool in self._pools.values()), timeout_s)

    async def close(self) -> None:
        """Close all channels; calls under way are cancelled."""
        for pool in (*self._pools.values(), *self._retired):
            await pool.close()

    # ------------------------------------------------------------ what is said of it

    def reach(self) -> list[pb.VariantReach]:
        """Return how many addresses each variant can call now, and its troubles."""
        return [
            _reach_of(route, variant, endpoints)
            for (route, variant), endpoints in self._endpoints.items()
        ]

    def ready_addresses(self, route: str, variant: str) -> tuple[str, ...]:
        """Return the addresses of a variant that are ready, by the names that reports give them.

        A variant that no table has gets none. An address ejected here counts as ready: it reports
        that it serves, and other processes may call it.
        """
        endpoints = self.find_endpoints(route, variant)
        return endpoints.ready_names if endpoints is not None else ()

    async def wait_for_reach_change(self) -> None:
        """Return when `reach` may be another than before this call: read it first, then wait."""
        await self._changes.wait()

    async def wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `is_so` or time is over; return `is_so()`. Each new reach asks again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    await self._changes.wait()
        return is_so()


def _reach_of(route: str, variant: str, endpoints: VariantEndpoints) -> pb.VariantReach:
    addresses, available = endpoints.address_counts
    return pb.VariantReach(
        route=route,
        variant=variant,
        addresses=addresses,
        available=available,
        troubles=endpoints.troubles,
    )

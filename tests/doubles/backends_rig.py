"""A proxy's backends, alive: they follow a table, and are asked who gets the next call."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from coalmine.clock import Clock, SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.backends.address import Address
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.resolve import LookupFailed, Resolver, Resolves
from coalmine_router.backends.targets import Lookup
from coalmine_router.backends.variant_endpoints import VariantEndpoints
from coalmine_router.channels import open_channel
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.oip_backend import INFER, request_body

BRISK = Intervals(
    probe_every_s=0.2,
    probe_deadline_s=0.2,
    probe_pause_s=0.05,
    watch_again_s=0.05,
    lookup_every_s=0.2,
    lookup_pause_s=0.05,
    files_every_s=0.1,
    idle_every_s=0.05,
)
_SECOND_NS = 10**9
BRISK_RULES = EjectionRules(failures=3, first_ns=_SECOND_NS // 5, longest_ns=2 * _SECOND_NS)


def table(*backends: Backend, canary: str = "", revision: int = 1) -> RouteTable:
    """Return a table of one route; stable is on the first backend, so is a canary but for one."""
    stable = backends[0].name
    variants = (
        Variant("stable", stable, weight_bp=9_000),
        Variant("canary", canary or stable, weight_bp=1_000),
    )
    return RouteTable(revision, backends, (Route("digits", Match("digits"), variants),))


class NamesByHand:
    """Looks names up in what a test says; one it says nothing of does not exist."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = dict(names)

    async def look_up(self, lookup: Lookup) -> list[str]:
        if not self.names.get(lookup.host):
            raise LookupFailed(f"{lookup.host} does not exist")
        return list(self.names[lookup.host])


class BackendsRig:
    """What `alive` gives: `backends`, and how to wait for what they come to know."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends

    @property
    def stable(self) -> VariantEndpoints:
        return self.backends.endpoints("digits", "stable")

    @property
    def canary(self) -> VariantEndpoints:
        return self.backends.endpoints("digits", "canary")

    def reach(self, variant: str = "stable") -> pb.VariantReach:
        return next(each for each in self.backends.reach() if each.variant == variant)

    async def until(self, reached: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return once `reached` is true; looked at whenever the reach is another."""
        async with asyncio.timeout(timeout_s):
            while not reached():
                await self.backends.wait_for_reach_change()

    async def available(self, count: int, variant: str = "stable") -> None:
        """Return once so many addresses of a variant may be called."""
        await self.until(lambda: self.reach(variant).available == count)

    async def calls(self, count: int) -> Counter[str]:
        """Make calls, one after the other, and return who got how many."""
        got: Counter[str] = Counter()
        for _ in range(count):
            address = self.stable.pick()
            assert address is not None, self.stable.trouble
            await called(address)
            got[address.name] += 1
        return got


def picked(endpoints: VariantEndpoints) -> str:
    """Return the name of who gets the next call; "" for nobody."""
    address = endpoints.pick()
    return address.name if address else ""


async def called(address: Address, timeout_s: float = 5.0) -> bytes:
    """Call an address as the hot path does."""
    address.outstanding += 1
    try:
        return await address.unary_call(f"/{INFER}")(request_body("digits"), timeout=timeout_s)
    finally:
        address.outstanding -= 1


@asynccontextmanager
async def alive(
    first: RouteTable, *, is_warm: bool = True, **given: Any
) -> AsyncIterator[BackendsRig]:
    """Yield backends that follow `first`, and run; at the end they are closed."""
    async with reaching(first, **given) as backends:
        if is_warm:
            await backends.wait_until_warm(10.0)
        yield BackendsRig(backends)


@asynccontextmanager
async def reaching(
    first: RouteTable | None = None,
    *,
    clock: Clock | None = None,
    resolver: Resolves | None = None,
    intervals: Intervals = BRISK,
    rules: EjectionRules = BRISK_RULES,
    is_lenient: bool = False,
    may_lose_stable: bool = False,
) -> AsyncIterator[Backends]:
    """Yield backends, without a table where none is `first`, that run until the end."""
    backends = Backends(
        clock=clock or SystemClock(),
        rng=random.Random(7),
        resolver=resolver or Resolver(),
        open_channel=open_channel,
        intervals=intervals,
        rules=rules,
        is_lenient=is_lenient,
        may_lose_stable=may_lose_stable,
    )
    if first is not None:
        backends.follow(first)
    async with backends.running():
        yield backends

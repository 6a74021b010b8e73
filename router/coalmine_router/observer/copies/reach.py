"""Whether copies for a variant can be sent now, or in a moment: pods are replaced all the time."""

from typing import Final

from coalmine.clock import Clock
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.variant_endpoints import VariantEndpoints

# A pod that takes another's place is found within that: by a lookup, a connection, its own word.
MOMENT_NS: Final = 2 * 10**9


class CopyReach:
    """The ways to variants' backends, for copies: nobody is called that can't be."""

    def __init__(self, backends: Backends, clock: Clock, moment_ns: int = MOMENT_NS) -> None:
        self._backends = backends
        self._clock = clock
        self._moment_ns = moment_ns

    def refusal(self, route: str, variant: str) -> str:
        """Return why no copy can be sent there, now or in a moment; "": it can."""
        endpoints = self._backends.find_endpoints(route, variant)
        if endpoints is None or endpoints.is_ready:
            return ""
        if endpoints.ready:
            return "circuit_open"
        return "" if self._left_ns(endpoints) > 0 else "no_address"

    async def wait(self, route: str, variant: str) -> VariantEndpoints | str:
        """Return the endpoints, once an address of it can be called, or why none is."""
        while not (refused := self.refusal(route, variant)):
            endpoints = self._backends.find_endpoints(route, variant)
            if endpoints is not None and endpoints.is_ready:
                return endpoints
            if endpoints is not None:
                endpoints.look_up_soon()
            if not await self._comes(route, variant, endpoints):
                return self.refusal(route, variant) or "no_address"
        return refused

    async def _comes(self, route: str, variant: str, endpoints: VariantEndpoints | None) -> bool:
        """Return whether something else is to be said of a variant, within the moment."""
        left_ns = self._left_ns(endpoints) if endpoints is not None else self._moment_ns

        def is_other() -> bool:
            now = self._backends.find_endpoints(route, variant)
            return now is not endpoints or (now is not None and bool(now.is_ready or now.ready))

        return await self._backends.wait_until(is_other, left_ns / 1e9)

    def _left_ns(self, endpoints: VariantEndpoints) -> int:
        return endpoints.lost_ns + self._moment_ns - self._clock.monotonic_ns()

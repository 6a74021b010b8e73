"""The readiness of all variants, asked for in the background: who reads it never waits."""

import asyncio
from typing import Final

import structlog

from coalmine_router.control.current import CurrentTable
from coalmine_router.control.readiness import AsksReadiness, Readiness
from coalmine_router.table import STABLE, RouteTable

_log = structlog.get_logger(__name__)

_PERIOD_S: Final = 2.0
# Of the time that it took to ask all of them.
_REST: Final = 3
_ASKED_AT_ONCE_MAX: Final = 16


class ReadinessCache:
    """What was last heard of each variant."""

    def __init__(
        self, current: CurrentTable, check: AsksReadiness, *, period_s: float = _PERIOD_S
    ) -> None:
        self._current = current
        self._check = check
        self._period_s = period_s
        self._heard: dict[tuple[str, str], Readiness] = {}

    def of(self, route: str, variant: str) -> Readiness:
        """Return what was last heard."""
        return self._heard.get((route, variant), Readiness(ready=False, reason="not asked yet"))

    async def run(self) -> None:
        """Ask again and again until cancelled.

        Asking takes at most a quarter of the time: changes and reports wait for the same loop.
        """
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await self.refresh()
            await asyncio.sleep(max(self._period_s, _REST * (loop.time() - began_s)))

    async def refresh(self) -> None:
        """Ask once for every variant of every route."""
        table = self._current.table
        turns = asyncio.Semaphore(_ASKED_AT_ONCE_MAX)
        async with asyncio.TaskGroup() as group:
            for route in table.routes:
                for variant in route.variants:
                    group.create_task(self._refresh_variant(table, route.name, variant.name, turns))

    async def _refresh_variant(
        self, table: RouteTable, route: str, variant: str, turns: asyncio.Semaphore
    ) -> None:
        async with turns:
            heard = await self._check.ask(table, route, variant)
        before = self._heard.get((route, variant))
        self._heard[route, variant] = heard
        _log_change(route, variant, before, heard)


def _log_change(route: str, variant: str, before: Readiness | None, heard: Readiness) -> None:
    """Log that a variant is ready now, or no longer. Where stable isn't, callers get errors."""
    was_ready = before is not None and before.ready
    if heard.ready and not was_ready:
        _log.info("variant_ready", route=route, variant=variant, ready=True)
    elif variant == STABLE and not heard.ready and (was_ready or before is None):
        _log.error("reference_lost", route=route, variant=variant, reason=heard.reason)
    elif was_ready and not heard.ready:
        _log.warning(
            "variant_ready", route=route, variant=variant, ready=False, reason=heard.reason
        )

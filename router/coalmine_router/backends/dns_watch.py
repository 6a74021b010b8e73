"""Keeping up with what a name stands for."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.resolve import HalfAnswered, LookupFailed, Resolves
from coalmine_router.backends.targets import Lookup

_log = structlog.get_logger(__name__)

# What is called with the addresses of a name, or with why there is no answer.
Told = Callable[[Lookup, list[str] | str], None]


class DnsWatch:
    """Looks one name up, again and again, for as long as `run` runs."""

    def __init__(
        self, lookup: Lookup, resolver: Resolves, told: Told, *, rng: random.Random, pace: Intervals
    ) -> None:
        self._lookup = lookup
        self._resolver = resolver
        self._told = told
        self._rng = rng
        self._pace = pace
        self._hurry = asyncio.Event()
        self._known: list[str] = []
        self._half = ""

    def hurry(self) -> None:
        """Look it up soon: an address of it was lost."""
        self._hurry.set()

    async def run(self) -> None:
        """Tell what each lookup says, until cancelled."""
        pace = self._pace
        while True:
            self._hurry.clear()
            self._told(self._lookup, await self._looked_up())
            await asyncio.sleep(pace.lookup_pause_s)
            with contextlib.suppress(TimeoutError):
                every_s = pace.lookup_every_s * (0.8 + 0.4 * self._rng.random())
                async with asyncio.timeout(max(0.0, every_s - pace.lookup_pause_s)):
                    await self._hurry.wait()

    async def _looked_up(self) -> list[str] | str:
        patience_s = self._pace.lookup_patience_s
        try:
            async with asyncio.timeout(patience_s):
                self._known = await self._resolver.addresses(self._lookup)
        except TimeoutError:
            return f"no answer within {patience_s:g} s"
        except HalfAnswered as half:
            self._known = half.beside(self._known)
            self._miss(str(half))
        except LookupFailed as error:
            return str(error)
        else:
            self._half = ""
        return self._known

    def _miss(self, why: str) -> None:
        if why != self._half:
            _log.warning("lookup_half_answered", name=str(self._lookup), why=why)
        self._half = why

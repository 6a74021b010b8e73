"""Keeps up with the addresses that a name stands for."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.resolve import HalfAnswered, LookupFailed, Resolves
from coalmine_router.backends.targets import Lookup

_log = structlog.get_logger(__name__)

# Takes the addresses of a name, or the reason why there is no answer.
TakesLookup = Callable[[Lookup, list[str] | str], None]


class DnsWatch:
    """Looks up one name again and again while `run` runs."""

    def __init__(
        self,
        lookup: Lookup,
        resolver: Resolves,
        take: TakesLookup,
        *,
        rng: random.Random,
        intervals: Intervals,
    ) -> None:
        self._lookup = lookup
        self._resolver = resolver
        self._take = take
        self._rng = rng
        self._intervals = intervals
        self._hurry = asyncio.Event()
        self._known: list[str] = []
        self._half = ""

    def look_up_soon(self) -> None:
        """Look up the name soon: one of its addresses was lost."""
        self._hurry.set()

    async def run(self) -> None:
        """Hand on the answer of each lookup, until cancelled."""
        intervals = self._intervals
        while True:
            self._hurry.clear()
            self._take(self._lookup, await self._look_up())
            await asyncio.sleep(intervals.lookup_pause_s)
            with contextlib.suppress(TimeoutError):
                every_s = intervals.lookup_every_s * (0.8 + 0.4 * self._rng.random())
                async with asyncio.timeout(max(0.0, every_s - intervals.lookup_pause_s)):
                    await self._hurry.wait()

    async def _look_up(self) -> list[str] | str:
        patience_s = self._intervals.lookup_patience_s
        try:
            async with asyncio.timeout(patience_s):
                self._known = await self._resolver.look_up(self._lookup)
        except TimeoutError:
            return f"no answer within {patience_s:g} s"
        except HalfAnswered as half:
            self._known = half.beside(self._known)
            self._note_half_answer(str(half))
        except LookupFailed as error:
            return str(error)
        else:
            self._half = ""
        return self._known

    def _note_half_answer(self, why: str) -> None:
        if why != self._half:
            _log.warning("lookup_half_answered", name=str(self._lookup), why=why)
        self._half = why

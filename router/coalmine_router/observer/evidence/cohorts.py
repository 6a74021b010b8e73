"""Requests of the split by when they began: counted once all that began with them ended. Pure.

A request is reported when it ends. Of those that began a moment ago the quick ones are known and
the slow ones are missing: beside a slower candidate it would seem that the split is not kept.
"""

from dataclasses import dataclass, field
from typing import Final

from coalmine_router.observer.evidence.counts import Events
from coalmine_router.observer.evidence.pair import Pair

_WIDTH_NS: Final = 10**9
# Reports of requests that ended in time may be on their way so much longer.
_REPORTED_NS: Final = 10 * 10**9
# Whoever takes longer is left out.
WAIT_NS_MAX: Final = 240 * 10**9


@dataclass(slots=True)
class _OfPair:
    """The cohorts that are waited for, by number; `counted` is the last one that no longer is."""

    open: dict[int, Events] = field(default_factory=dict)
    counted: int = -1


class Cohorts:
    """A cohort a second, of each pair.

    `since_ns`: of requests that began before, some may have ended unseen, the quick ones first.
    """

    def __init__(self, since_ns: int) -> None:
        self._since_ns = since_ns
        self._pairs: dict[Pair, _OfPair] = {}
        # Requests of cohorts that are counted already, and those from before `since_ns`.
        self.left_out = 0

    def add(
        self, pair: Pair, weights_bp: tuple[int, int], *, is_candidate: bool, began_ns: int
    ) -> None:
        """Take in one request that has ended."""
        of = self._pairs.setdefault(pair, _OfPair())
        number = began_ns // _WIDTH_NS
        if began_ns < self._since_ns or number <= of.counted:
            self.left_out += 1
            return
        of.open.setdefault(number, Events()).add(weights_bp, is_candidate=is_candidate)

    def take_complete(self, pair: Pair, now_ns: int, timeout_ns: int) -> list[Events]:
        """Return the cohorts that nobody can be missing from any more; each once."""
        of = self._pairs.setdefault(pair, _OfPair())
        wait_ns = min(timeout_ns + _REPORTED_NS, WAIT_NS_MAX)
        last = (now_ns - wait_ns) // _WIDTH_NS - 1
        if last <= of.counted:
            return []
        of.counted = last
        return [of.open.pop(number) for number in sorted(of.open) if number <= last]

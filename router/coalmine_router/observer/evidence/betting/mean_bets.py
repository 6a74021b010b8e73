"""Bets on the mean of observations in [0, 1] or [-1, 1] against a limit. Pure.

Against "the mean is at most the limit p" a bet pays 1 + s (x - p), against "it is at least p" it
pays 1 + s (p - x). Its stake s is small enough that no factor is negative; the mean of a factor is
at most 1 under the hypothesis, whatever was seen before. Small stakes find small differences,
large ones find large differences soon.

An observation is the mean over a window, and windows differ in size. Plain bets take each as it is.
Sized ones take less of a small one: the stake times min(n, B)/B, where B is the largest window
before it. A candidate that is wrong in crowded moments alone, or in quiet ones alone, is over the
limit by one of them. FAIL is by the mean of both, PASS needs both.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, Self

import numpy as np

from coalmine_router.observer.evidence.betting.wealth import Floats, Wealth

_BETS: Final = 24
_PLAIN_AND_SIZED: Final = 2
# This part of the stake for a PASS is not bet. Where the limit is just met, the bets that earn most
# while nothing mismatches would use up the whole of alpha by themselves: docs/adr/0023.
_HELD_BACK: Final = 0.125
_ONE: Final = np.ones(())
_LOG_2: Final = float(np.log(2.0))


class Limit(NamedTuple):
    """The limit of a mean, and the least that an observation can be: 0 or -1; the most is 1."""

    value: float
    least: float = 0.0


class Stakes(NamedTuple):
    """Stakes of the bets against "at most" and "at least" a limit. Shapes: (bets,)."""

    above: Floats
    below: Floats


@lru_cache(maxsize=1_024)
def stakes_of(limit: Limit) -> Stakes:
    """Return the stakes for a limit; `limit.least` < `limit.value` < 1."""
    room_below, room_above = limit.value - limit.least, 1.0 - limit.value
    above = np.geomspace(0.0025, 0.98, _BETS) / room_below
    # Densest at its end: where nothing mismatches, the largest stake earns most.
    left = np.geomspace(0.001, 0.9, _BETS) if limit.least == 0.0 else 1.0 - above * room_below
    return Stakes(above, (1.0 - left) / room_above)


@dataclass(slots=True)
class SizedBets:
    """The bets of one direction: plain ones, and those that take less of small windows.

    `largest` is the size of the largest window so far. Shapes: that of the means judged.
    """

    wealth: Wealth
    largest: Floats

    @classmethod
    def of(cls, *shape: int) -> Self:
        """Return the bets on means of this shape; () is one mean."""
        return cls(Wealth.of(*shape, _PLAIN_AND_SIZED, _BETS), np.zeros(shape))

    def observe(self, stakes: Floats, gain: Floats | float, size: Floats | float) -> None:
        """Take one window: each bet is multiplied by 1 + its stake times `gain`."""
        if self.largest.ndim == 0 and size == 1.0 and self.largest <= 1.0:
            # One mean, by requests: sized bets are as the plain ones.
            self.largest = _ONE
            self.wealth.observe(np.log1p(stakes * gain))
            return
        before = np.where(self.largest, self.largest, size)
        part = np.minimum(size, before) / before
        self.largest = np.maximum(self.largest, size)
        of_stake = np.stack([np.ones_like(part), part], axis=-1)[..., None]
        self.wealth.observe(np.log1p(stakes * of_stake * np.asarray(gain)[..., None, None]))

    def add(self, other: Self) -> None:
        """Take in what was observed elsewhere."""
        self.wealth.add(other.wealth)
        self.largest = np.maximum(self.largest, other.largest)


@dataclass(slots=True)
class MeanBets:
    """What windows have shown of a mean beside a limit, always the same one.

    It adds up over observers. Several independent means can be judged at once.
    """

    above: SizedBets = field(default_factory=SizedBets.of)
    below: SizedBets = field(default_factory=SizedBets.of)

    @classmethod
    def of(cls, *shape: int) -> Self:
        """Return the bets on means of this shape; () is one mean."""
        return cls(SizedBets.of(*shape), SizedBets.of(*shape))

    def observe(self, limit: Limit, mean: Floats | float, size: Floats | float = 1.0) -> None:
        """Take the mean over one window of so many requests. Shapes: that of the means judged."""
        self.observe_above(limit, mean, size)
        self.observe_below(limit, mean, size)

    def observe_above(self, limit: Limit, mean: Floats | float, size: Floats | float) -> None:
        """Bet on a window against "the mean is at most the limit" alone."""
        self.above.observe(stakes_of(limit).above, mean - limit.value, size)

    def observe_below(self, limit: Limit, mean: Floats | float, size: Floats | float) -> None:
        """Bet on a window against "the mean is at least the limit" alone."""
        self.below.observe(stakes_of(limit).below, limit.value - mean, size)

    def log_fail(self) -> Floats:
        """Return ln e against "the mean is at most the limit", whenever it came to be more."""
        plain, sized = np.moveaxis(self.above.wealth.log_from_any(), -1, 0)
        return np.asarray(np.logaddexp(plain, sized) - _LOG_2)

    def log_pass(self) -> Floats:
        """Return ln e against "the mean is at least the limit", by plain and by sized bets."""
        bet = self.below.wealth.log_from_first().min(axis=-1) + np.log1p(-_HELD_BACK)
        return np.asarray(np.logaddexp(bet, np.log(_HELD_BACK)))

    def add(self, other: Self) -> None:
        """Take in what was observed elsewhere, against the same limit."""
        self.above.add(other.above)
        self.below.add(other.below)

"""Means with the interval that the gates' own tests leave open, for people to read. Pure.

An end is where the test of that end begins to reject: so a bound lies outside of what is shown
exactly where the gate has decided about it, and each end holds at every look with 1 - alpha. Made
from sums alone, so intervals of several routers' evidence are those of its sum.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from coalmine_router.observer.evidence.counts import Differences, Shares
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.paired import log_above, log_below

# Of a rate's log odds, and of a difference.
_ODDS_MAX: Final = 35.0
_DIFFERENCE_MAX: Final = 1.0 - 1e-9
# Halvings: to a millionth of a rate, or of a difference.
_STEPS: Final = 26


class Rate(NamedTuple):
    """A mean, and the interval for it; of no request, the whole range."""

    value: float
    low: float
    high: float
    requests: int


def rate_of(shares: Shares, alpha: float) -> Rate:
    """Return the mean share, in [0, 1]."""
    if not shares.requests:
        return Rate(0.0, 0.0, 1.0, 0)
    ones, zeros, needed = shares.mismatch, shares.match, math.log(1.0 / alpha)

    def too_low(odds: float) -> bool:
        return bool(log_evidence(ones, zeros, _rate(odds)).above >= needed)

    def too_high(odds: float) -> bool:
        return bool(log_evidence(ones, zeros, _rate(odds)).below >= needed)

    middle = _odds(shares.mean)
    low, high = _end(too_low, -_ODDS_MAX, middle), _end(too_high, _ODDS_MAX, middle)
    return Rate(
        shares.mean,
        0.0 if low is None else _rate(low),
        1.0 if high is None else _rate(high),
        shares.requests,
    )


def difference_of(differences: Differences, alpha: float) -> Rate:
    """Return the mean difference, in [-1, 1]."""
    if not differences.requests:
        return Rate(0.0, -1.0, 1.0, 0)
    counts = np.array([differences.worse, differences.same, differences.better])
    needed, mean = math.log(1.0 / alpha), differences.mean
    middle = min(max(mean, -_DIFFERENCE_MAX), _DIFFERENCE_MAX)
    low = _end(lambda bound: bool(log_above(counts, bound) >= needed), -_DIFFERENCE_MAX, middle)
    high = _end(lambda bound: bool(log_below(counts, bound) >= needed), _DIFFERENCE_MAX, middle)
    return Rate(
        mean,
        -1.0 if low is None else low,
        1.0 if high is None else high,
        differences.requests,
    )


def _end(rejects: Callable[[float], bool], outer: float, inner: float) -> float | None:
    """Return where `rejects` turns from true, at `outer`, to false; None where it is never true."""
    if not rejects(outer):
        return None
    for _ in range(_STEPS):
        middle = (outer + inner) / 2.0
        if rejects(middle):
            outer = middle
        else:
            inner = middle
    return outer


def _rate(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))


def _odds(rate: float) -> float:
    least = _rate(-_ODDS_MAX)
    inside = min(max(rate, least), 1.0 - least)
    return math.log(inside / (1.0 - inside))

"""Runs of chance that are looked at after every observation: by their sums, all runs at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coalmine_router.observer.evidence.mixture import log_evidence

Ints = NDArray[np.int64]
NEVER = 10**9


def fails_from(rate: float, looks: int, alpha: float = 0.05) -> Ints:
    """Return, of each look, the least number of ones at which "at most `rate`" is rejected."""
    return _least(
        lambda ones, zeros: log_evidence(ones, zeros, rate).above >= np.log(1 / alpha), looks
    )


def passes_below(rate: float, looks: int, alpha: float = 0.05) -> Ints:
    """Return, of each look, the least number of ones at which "at least `rate`" is not rejected."""
    return _least(
        lambda ones, zeros: log_evidence(ones, zeros, rate).below < np.log(1 / alpha), looks
    )


def _least(holds: Callable[[Any, Any], Any], looks: int) -> Ints:
    total = np.arange(1, looks + 1)
    low, high = np.full(looks, -1), total + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        ones = np.clip(middle, 0, total).astype(float)
        found = holds(ones, total - ones) & (middle >= 0)
        high, low = np.where(found, middle, high), np.where(found, low, middle)
    return high


def first(crossed: NDArray[np.bool_]) -> Ints:
    """Return the number of looks until the first crossing of each run; NEVER where there is none.

    `crossed`: (runs, looks).
    """
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, NEVER)


def sums(chance: np.random.Generator, rate: float | NDArray[Any], runs: int, looks: int) -> Any:
    """Return how many ones there were by each look: (runs, looks)."""
    drawn = chance.random((runs, looks), dtype=np.float32) < rate
    return drawn.cumsum(axis=1, dtype=np.int32)


def mixed(factors: NDArray[np.float64], places: Ints) -> NDArray[np.float64]:
    """Return the logarithm of the mean of products, after each look: (runs, looks).

    `factors`: (kinds, members) logarithms; `places`: (runs, looks), the kind that was seen.
    """
    total = np.full(places.shape, -np.inf)
    for member in factors.T:
        np.logaddexp(total, member[places].cumsum(axis=1), out=total)
    return np.asarray(total - np.log(factors.shape[1]))

"""What bets on the same observations are worth, from the first and from every later one. Pure.

A mean of bets that begin at different times finds a model that breaks after long health: what it
earned before doesn't have to be lost first. The bet that begins with observation j gets the weight
1/(j (j + 1)); these weights sum to 1. All begins of one bet share its factors, so their weighted
sum is one number, V(n) = (V(n-1) + 1/(n (n + 1))) factor(n): no begin has to be kept, or dropped.

Source: Shin, Ramdas, Rinaldo 2023, arXiv 2203.03532 (e-detectors).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator


def _floats(numbers: Any) -> NDArray[np.float64]:
    return np.array(numbers, dtype=np.float64)


def _numbers(floats: NDArray[np.float64]) -> Any:
    return floats.tolist()


# As JSON, numbers or lists of them.
Floats = Annotated[NDArray[np.float64], PlainValidator(_floats), PlainSerializer(_numbers)]

# The logarithm of a weight that no wealth ever makes up for; with infinity, sums need care.
_LOG_NOTHING: Final = -1e12
_LOG_2: Final = math.log(2.0)


def log_mean_exp(logs: Floats) -> Floats:
    """Return the logarithm of the mean of numbers given by theirs. The last axis goes."""
    return np.asarray(np.logaddexp.reduce(logs, axis=-1) - math.log(logs.shape[-1]))


@dataclass(slots=True, eq=False)
class Wealth:
    """Logarithms of what bets are worth. Shapes: (…, bets).

    `first`: the bets that began with the first observation. `later`: the weighted sum of those that
    began with each observation so far; those still to begin have the rest of the weight, and are
    worth 1. `observed` is how many observations there were.
    """

    first: Floats
    later: Floats
    observed: int = 0

    @classmethod
    def of(cls, *shape: int) -> Self:
        """Return the wealth of bets that have not seen anything."""
        return cls(np.zeros(shape), np.full(shape, _LOG_NOTHING))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Wealth)
            and self.observed == other.observed
            and np.array_equal(self.first, other.first)
            and np.array_equal(self.later, other.later)
        )

    __hash__ = None  # type: ignore[assignment]  # as dataclasses have it that compare

    def observe(self, log_factors: Floats) -> None:
        """Multiply by what one observation pays. Shape: that of the wealth."""
        self.observed += 1
        log_weight = -math.log(self.observed * (self.observed + 1.0))
        self.first += log_factors
        np.logaddexp(self.later, log_weight, out=self.later)
        self.later += log_factors

    def log_from_first(self) -> Floats:
        """Return ln e of the bets from the first observation on: their mean. Shape: (…)."""
        return log_mean_exp(self.first)

    def log_from_any(self) -> Floats:
        """Return ln e of both: half of the stake on each. Shape: (…)."""
        later = np.logaddexp(log_mean_exp(self.later), -math.log(self.observed + 1.0))
        return np.asarray(np.logaddexp(log_mean_exp(self.first), later) - _LOG_2)

    def add(self, other: Self) -> None:
        """Take in what the same bets saw elsewhere, as if it came before, and as if after.

        Both are e-processes, so their mean is one.
        """
        if not other.observed:
            return
        if not self.observed:
            self.first, self.later = other.first.copy(), other.later.copy()
            self.observed = other.observed
            return
        after, before = self.later + other.first, other.later + self.first
        self.first = self.first + other.first
        self.later = np.logaddexp(after, before) - _LOG_2
        self.observed += other.observed

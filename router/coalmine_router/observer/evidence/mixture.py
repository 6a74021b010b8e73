"""Evidence on the mean of numbers in [0, 1], valid at every look: a truncated beta mixture. Pure.

Each function returns natural logarithms of e-values: under its hypothesis the e-value's mean is at
most 1, at any time one chooses to look. So it reaches 1/alpha with probability alpha at most, once
or ever (Ville's inequality).

Numbers, not only 0 and 1: for x in [0, 1] the weighted geometric mean lies below the arithmetic
one, (p/q)^x ((1-p)/(1-q))^(1-x) <= x p/q + (1-x)(1-p)/(1-q), whose mean is at most 1 where that of
x is at most q < p (or at least q > p), whatever was seen before. A product of such factors, and a
mixture of such products, is below a non-negative supermartingale that begins at 1.

Source: Howard, Ramdas, McAuliffe, Sekhon 2021, arXiv 1810.08240; Waudby-Smith, Ramdas 2023,
arXiv 2010.09686.
"""

import math
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln

from coalmine_router.observer.evidence.tails import log_tails

# The mixture's weights: all rates alike.
_A: Final = 1.0
_B: Final = 1.0
_LOG_WHOLE: Final = float(betaln(_A, _B))


class Weights(NamedTuple):
    """Logarithms of e-values: against "the mean is at most", and against "it is at least"."""

    above: Any
    below: Any


def log_evidence(ones: ArrayLike, zeros: ArrayLike, rate: float) -> Weights:
    """Return how the sums of x and of 1 - x speak against a mean <= `rate`, and >= `rate`.

    Shapes: any, equal. Sums need not be whole. 0 < rate < 1.
    """
    a, b = np.add(_A, ones), np.add(_B, zeros)
    below, above = log_tails(a, b, rate)
    prior_below, prior_above, log_rate, log_rest = _tails_and_logs(rate)
    spread = betaln(a, b) - _LOG_WHOLE - np.multiply(ones, log_rate) - np.multiply(zeros, log_rest)
    return Weights(spread + above - prior_above, spread + below - prior_below)


@lru_cache(maxsize=1_024)
def _tails_and_logs(rate: float) -> tuple[float, float, float, float]:
    below, above = log_tails(_A, _B, rate)
    return float(below), float(above), math.log(rate), math.log1p(-rate)

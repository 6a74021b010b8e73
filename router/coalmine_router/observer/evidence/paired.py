"""Evidence on the mean of a difference in [-1, 1], from counts: a bet against its bound. Pure.

d is the candidate's share of rows that mismatch less that of the reference's own second answer, on
the same request. Against "the mean of d is at most m" the e-value is the mean over stakes s in
(0, 1) of the product over requests of 1 + s (d - m)/(1 + m): no factor is negative, and its mean
is at most 1 where that of d is at most m, whatever was seen before.

A d between whole numbers was counted in parts at both. Each factor is linear in d, so its logarithm
is concave, and the parts' weighted sum of logarithms lies below the logarithm of the whole: what
is returned is at most the e-value of d itself, and still valid.
Source: Waudby-Smith, Ramdas 2023, arXiv 2010.09686 (betting, with a mixture over fixed stakes).
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

# Evenly spaced in ratio: small stakes find small differences, large ones find large ones soon.
STAKES: Final = np.geomspace(0.02, 0.98, 10)


def log_above(counts: _Floats, bound: float) -> _Floats:
    """Return ln e against "the mean of d is at most `bound`".

    `counts`: (…, 3), how many d are 1, 0 and -1; the last axis goes. -1 < bound < 1.
    """
    logs = counts @ _log_gains(bound)
    greatest = logs.max(axis=-1)
    mean = np.exp(logs - greatest[..., None]).mean(axis=-1)
    return np.asarray(greatest + np.log(mean))


def log_below(counts: _Floats, bound: float) -> _Floats:
    """Return ln e against "the mean of d is at least `bound`"; as `log_above`, mirrored."""
    return log_above(counts[..., ::-1], -bound)


@lru_cache(maxsize=1_024)
def _log_gains(bound: float) -> _Floats:
    """Return ln(1 + s (d - m)/(1 + m)) for d = 1, 0, -1, by stake: (3, stakes)."""
    odds = (np.array([1.0, 0.0, -1.0]) - bound) / (1.0 + bound)
    return np.log1p(np.outer(odds, STAKES))

"""Whether events fall on one side of the split more often than the split explains. Pure.

Each event (an error, a slow request, or any request) is the candidate's with the probability w
that the split gave it, if both sides have as many. So only events are looked at, each with its own
w: valid while weights move, and while a rate that both share drifts.

The e-value is a mean over log odds ratios delta of the product over events of
exp(delta y) / (w exp(delta) + 1 - w), y = 1 for the candidate's.
Source: Lindon, Malek 2020, arXiv 2011.03567.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coalmine_router.observer.evidence.betting.wealth import log_mean_exp
from coalmine_router.observer.evidence.counts import Events

_Floats = NDArray[np.float64]
_Pairs = tuple[tuple[int, int], ...]

_OFF: Final = tuple(np.concatenate([-np.linspace(0.02, 0.6, 30), np.linspace(0.02, 0.6, 30)]))


def log_off_split(events: Events) -> float:
    """Return ln e against "requests were split by the weights", in either direction."""
    return _log_mean(events, _OFF)


def _log_mean(events: Events, deltas: tuple[float, ...]) -> float:
    if not events.by_weights:
        return 0.0
    normalisers = _normalisers(tuple(events.by_weights), deltas)
    counts = np.array(list(events.by_weights.values()), dtype=np.float64)
    logs = np.multiply(deltas, counts[:, 1] @ normalisers.informs) - counts[:, 0] @ normalisers.logs
    return float(log_mean_exp(logs))


class _Normalisers(NamedTuple):
    """Of each pair of weights: whether both sides had a chance, and ln(w e^delta + 1 - w)."""

    informs: _Floats
    logs: _Floats


@lru_cache(maxsize=256)
def _normalisers(pairs: _Pairs, deltas: tuple[float, ...]) -> _Normalisers:
    weights = np.array(pairs, dtype=np.float64)
    informs = np.minimum(weights[:, :1], weights[:, 1:]) > 0
    share = weights[:, :1] / np.maximum(weights[:, :1] + weights[:, 1:], 1.0)
    logs = np.log1p(share * np.expm1(deltas))
    return _Normalisers(np.float64(1.0) * informs[:, 0], np.where(informs, logs, 0.0))

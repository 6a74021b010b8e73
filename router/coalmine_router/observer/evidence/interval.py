"""Means with the interval that the gates' own tests leave open, for people to read. Pure.

An end is where the test of that end begins to reject: so a bound lies outside of what is shown
exactly where the gate has decided about it, and each end holds at every look with 1 - alpha. Made
from sums alone, so intervals of several routers' evidence are those of its sum.

A trial has hundreds, so many are found at once. By the log odds of its bound, ln e against "the
mean is at most" is convex, and falls as long as it is positive: so Newton's steps, from outside,
come ever nearer to the end and never pass it. The upper end is the lower one of mirrored sums.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln, expit, log_expit

from coalmine_router.observer.evidence.counts import Shares
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.paired import STAKES

_Floats = NDArray[np.float64]
# ln e and its slope, of (n, k) sums at (n,) log odds of the bound.
_Curve = Callable[[_Floats, _Floats], tuple[_Floats, _Floats]]

# The outermost bound, as log odds.
_ODDS_MAX: Final = 35.0
# A step squares what is left: from so much of ln e, to less than a millionth of an interval.
_NEAR: Final = 1e-3
_STEPS_MAX: Final = 100


class Rate(NamedTuple):
    """A mean, and the interval for it; of no request, the whole range."""

    value: float
    low: float
    high: float
    requests: int


def rate_of(shares: Shares, alpha: float) -> Rate:
    """Return the mean share, in [0, 1]."""
    return rates_of([shares], alpha)[0]


def rates_of(shares: Sequence[Shares], alpha: float) -> list[Rate]:
    """Return the mean share of each, in [0, 1]. 0 < alpha <= 0.5."""
    sums = np.array([(of.mismatch, of.match) for of in shares]).reshape(-1, 2)
    low, high = _both_ends((_curve_nearly_above, _curve_above), sums, alpha)
    ends = zip(shares, expit(low).tolist(), expit(high).tolist(), strict=True)
    return [_rate(of, *found) if of.requests else Rate(0.0, 0.0, 1.0, 0) for of, *found in ends]


def difference_of(differences: Differences, alpha: float) -> Rate:
    """Return the mean difference, in [-1, 1]."""
    return differences_of([differences], alpha)[0]


def differences_of(differences: Sequence[Differences], alpha: float) -> list[Rate]:
    """Return the mean difference of each, in [-1, 1]. 0 < alpha <= 0.5."""
    sums = np.array([(of.worse, of.same, of.better) for of in differences]).reshape(-1, 3)
    # The log odds of a difference are those of half of what it lies above -1.
    low, high = (np.tanh(odds / 2.0) for odds in _both_ends((_paired_curve,), sums, alpha))
    ends = zip(differences, low.tolist(), high.tolist(), strict=True)
    return [_rate(of, *found) if of.requests else Rate(0.0, -1.0, 1.0, 0) for of, *found in ends]


def _rate(of: Shares | Differences, low: float, high: float) -> Rate:
    return Rate(of.mean, low, high, of.requests)


# ---------------------------------------------------------------- where the evidence is enough


def _both_ends(curves: Sequence[_Curve], sums: _Floats, alpha: float) -> tuple[_Floats, _Floats]:
    """Return the log odds of both ends, infinite where no bound is rejected.

    Each of `curves` begins where the one before it ended; the last one is exact.
    """
    both = np.concatenate([sums, sums[:, ::-1]])
    needed, odds = -math.log(alpha), np.full(len(both), -_ODDS_MAX)
    rejects = curves[0](both, odds)[0] >= needed
    odds[~rejects] = -np.inf
    for curve in curves:
        odds[rejects] = _odds_where_fallen(curve, both[rejects], odds[rejects], needed)
    low, mirrored = np.split(odds, 2)
    return low, -mirrored


def _odds_where_fallen(curve: _Curve, sums: _Floats, odds: _Floats, needed: float) -> _Floats:
    """Return where `curve` has fallen to `needed`, beginning at `odds`."""
    for _ in range(_STEPS_MAX):
        log_e, slope = curve(sums, odds)
        odds = odds - (log_e - needed) / slope
        if np.all(np.abs(log_e - needed) < _NEAR):
            break
    return odds


# ---------------------------------------------------------------- the evidence at many bounds


def _curve_above(sums: _Floats, odds: _Floats) -> tuple[_Floats, _Floats]:
    """Return what `mixture.log_evidence` says against "the mean is at most"."""
    ones, zeros = sums.T
    rate = expit(odds)
    without, slope = _curve_without_tail(sums, odds)
    log_e = without + np.log(betaincc(ones + 1.0, zeros + 1.0, rate))
    return log_e, slope - rate * np.exp(-log_e)


def _curve_nearly_above(sums: _Floats, odds: _Floats) -> tuple[_Floats, _Floats]:
    """Return about as much as `_curve_above` without its tail, which takes ten times as long.

    At an end, the tail is nearly 1. Without it the least is 1 at most, and what is needed more than
    0.69: half less comes near the end, and is always reached.
    """
    without, slope = _curve_without_tail(sums, odds)
    return without - 0.5, slope


def _curve_without_tail(sums: _Floats, odds: _Floats) -> tuple[_Floats, _Floats]:
    ones, zeros = sums.T
    whole = betaln(ones + 1.0, zeros + 1.0)
    log_e = whole - ones * log_expit(odds) - (zeros + 1.0) * log_expit(-odds)
    return log_e, (ones + zeros + 1.0) * expit(odds) - ones


def _paired_curve(sums: _Floats, odds: _Floats) -> tuple[_Floats, _Floats]:
    """Return what `paired.log_above` does: of (n, 3) sums, over all its stakes."""
    worse, same, better = sums.T[..., None]
    against = STAKES * np.exp(-odds)[:, None]
    gain, loss = 1.0 + against, 1.0 + (against - STAKES) / 2.0
    logs = worse * np.log(gain) + same * np.log(loss) + better * np.log1p(-STAKES)
    slopes = -against * (worse / gain + same / loss / 2.0)
    greatest = logs.max(axis=-1)
    parts = np.exp(logs - greatest[:, None])
    log_e = greatest + np.log(parts.mean(axis=-1))
    return log_e, (parts * slopes).sum(axis=-1) / parts.sum(axis=-1)

"""The tails of the beta distribution as logarithms, however small. Pure.

Beyond 1e-308 a tail is 0 as a number. Clipped there, it would make up evidence that isn't: a
verdict is a difference of such logarithms.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincc, betaln

# Below, a double has lost digits; above, scipy's value has them all.
_TINY: Final = 1e-290
# A far tail's continued fraction is exact after a few dozen terms.
_TERMS_MAX: Final = 10_000
_EXACT: Final = 1e-15
_NOT_ZERO: Final = 1e-300


def log_tails(a: ArrayLike, b: ArrayLike, x: float) -> tuple[Any, Any]:
    """Return ln P(X <= x) and ln P(X > x) of X ~ Beta(a, b), element by element.

    a, b > 0 and 0 < x < 1. Source: scipy's betainc; far tails by the continued fraction 8.17.22 of
    the Digital Library of Mathematical Functions.
    """
    log_x, log_rest = math.log(x), math.log1p(-x)
    return _logs_of_tail(a, b, log_x, log_rest, betainc(a, b, x)), _logs_of_tail(
        b, a, log_rest, log_x, betaincc(a, b, x)
    )


def _logs_of_tail(a: ArrayLike, b: ArrayLike, log_x: float, log_rest: float, tail: Any) -> Any:
    """Return ln of `tail`, which is I_x(a, b) as numbers; of one number, a number."""
    if isinstance(tail, float):
        return _log_of_tail(float(a), float(b), log_x, log_rest, tail)  # type: ignore[arg-type]
    found = np.log(np.maximum(tail, _TINY))
    whole = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    for place in map(tuple, np.argwhere(tail < _TINY)):
        found[place] = log_far_tail(float(whole[0][place]), float(whole[1][place]), log_x, log_rest)
    return found


def _log_of_tail(a: float, b: float, log_x: float, log_rest: float, tail: float) -> float:
    return math.log(tail) if tail >= _TINY else log_far_tail(a, b, log_x, log_rest)


def log_far_tail(a: float, b: float, log_x: float, log_rest: float) -> float:
    """Return ln I_x(a, b) for x below the mean a/(a+b).

    `log_x` and `log_rest` are ln x and ln (1 - x).
    """
    front = a * log_x + b * log_rest - math.log(a) - float(betaln(a, b))
    return front - math.log(_continued_fraction(a, b, math.exp(log_x)))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + ...)), by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _TERMS_MAX):
        step = _fraction_term(a, b, x, term)
        d = 1.0 / _off_zero(1.0 + step * d)
        c = _off_zero(1.0 + step / c)
        value *= c * d
        if abs(c * d - 1.0) < _EXACT:
            break
    return value


def _fraction_term(a: float, b: float, x: float, term: int) -> float:
    m = term // 2
    if term % 2:
        return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))


def _off_zero(value: float) -> float:
    return value if abs(value) > _NOT_ZERO else _NOT_ZERO

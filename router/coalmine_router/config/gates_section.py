"""The section `gates` of a route: what a verdict depends on."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from coalmine.process.config_file import Duration, Strict
from coalmine.units import duration_ns


class SlowGate(Strict):
    """Requests that take longer than `over` count as slow."""

    over: Annotated[Duration, Field(gt=0)]


_TEN_MINUTES_NS: Final = 600 * 10**9
_HALF_A_MINUTE_NS: Final = 30 * 10**9
_PER_NS_MIN: Final = 10**8
_PER_NS_MAX: Final = 3_600 * 10**9


def _per_ns(value: object) -> int:
    """Return how long a window is; 0 where each request is one."""
    if value == "request":
        return 0
    per_ns = duration_ns(value)
    if not _PER_NS_MIN <= per_ns <= _PER_NS_MAX:
        raise ValueError("expected 'request', or 100ms to 1h")
    return per_ns


class GatesConfig(Strict):
    """The gates of a route's candidates. `alpha`: the chance of a false FAIL, or PASS, of each.

    Without `max_mismatch_rate`, comparisons are counted and never judged. A PASS needs each ready
    address to have been compared within `addresses_within` of traffic.
    The mean over a window of `per` is one observation; `request` where requests are independent. A
    PASS also needs `min_duration` of comparisons.
    Events of the split that hang together are one incident, of `spell` at most. A candidate may
    have `allowed_ratio` times stable's.
    """

    max_mismatch_rate: Annotated[float, Field(ge=1e-6, lt=1)] | None = 0.01
    alpha: Annotated[float, Field(ge=1e-6, le=0.5)] = 0.05
    min_pairs: Annotated[int, Field(ge=1, le=10**9)] = 50
    error_rate: bool = True
    slow: SlowGate | None = None
    addresses_within: Annotated[Duration, Field(gt=0)] = _TEN_MINUTES_NS
    per: Annotated[int, BeforeValidator(_per_ns)] = 10**9
    min_duration: Annotated[Duration, Field(ge=0)] = _TEN_MINUTES_NS
    spell: Annotated[Duration, Field(ge=10**9, le=600 * 10**9)] = _HALF_A_MINUTE_NS
    allowed_ratio: Annotated[float, Field(ge=1, le=100)] = 1.0

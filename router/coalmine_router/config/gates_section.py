"""The section `gates` of a route: what a verdict depends on."""

from typing import Annotated, Final, Literal

from pydantic import Field

from coalmine.process.config_file import Duration, Strict


class SlowGate(Strict):
    """Requests that take longer than `over` count as slow."""

    over: Annotated[Duration, Field(gt=0)]


_TEN_MINUTES_NS: Final = 600 * 10**9
_HALF_A_MINUTE_NS: Final = 30 * 10**9


class GatesConfig(Strict):
    """The gates of a route's candidates. `alpha`: the chance of a false FAIL, or PASS, of each.

    Without `max_mismatch_rate`, comparisons are counted and never judged. A PASS needs each ready
    address to have been compared within `addresses_within` of traffic.
    The mean over a window of `per` is one observation; `request` where requests are independent. A
    PASS also needs `min_duration` of comparisons.
    Events of the split that hang together are one incident, of `spell` at most. A candidate may
    have `allowed_ratio` times stable's.
    """

    max_mismatch_rate: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    min_pairs: Annotated[int, Field(ge=1, le=10**9)] = 50
    error_rate: bool = True
    slow: SlowGate | None = None
    addresses_within: Annotated[Duration, Field(gt=0)] = _TEN_MINUTES_NS
    per: Annotated[Duration, Field(ge=10**8, le=3600 * 10**9)] | Literal["request"] = 10**9
    min_duration: Annotated[Duration, Field(ge=0)] = _TEN_MINUTES_NS
    spell: Annotated[Duration, Field(ge=10**9, le=600 * 10**9)] = _HALF_A_MINUTE_NS
    allowed_ratio: Annotated[float, Field(ge=1, le=100)] = 1.0

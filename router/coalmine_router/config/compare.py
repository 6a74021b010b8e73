"""How a route's answers are compared, as the file gives it."""

from typing import Annotated, Literal

from pydantic import Field

from coalmine.config_file import Duration, Strict


class CloseRule(Strict):
    """Equal within tolerances; unset ones depend on the datatype."""

    rule: Literal["close"] = "close"
    rtol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    atol: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class ExactRule(Strict):
    """Equal to the bit, NaN to NaN."""

    rule: Literal["exact"]


class IgnoreRule(Strict):
    """Not looked at: ignored is not matched."""

    rule: Literal["ignore"]


RuleConfig = Annotated[CloseRule | ExactRule | IgnoreRule, Field(discriminator="rule")]


class CompareConfig(Strict):
    """How answers are compared, output by output."""

    default: RuleConfig = CloseRule()
    outputs: dict[str, RuleConfig] = Field(default={})


class SlowGate(Strict):
    """What counts as slow."""

    over: Duration


class GatesConfig(Strict):
    """What is noticed about a request."""

    slow: SlowGate | None = None

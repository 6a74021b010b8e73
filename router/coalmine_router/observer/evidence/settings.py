"""What a verdict asks, as values. Pure."""

from dataclasses import dataclass, field
from functools import cached_property
from math import log
from typing import Final

from coalmine_router.config.gates_section import GatesConfig
from coalmine_router.observer.evidence.betting.mean_bets import Limit
from coalmine_router.observer.evidence.betting.spells import SpellTerms
from coalmine_router.observer.evidence.betting.windows import WindowTerms

SPLIT_ALPHA: Final = 0.01


@dataclass(frozen=True)
class GateSettings:
    """The gates of a route's pairs.

    `max_mismatch_rate` None: comparisons are not judged. `has_noise`: stable is asked twice for
    some requests, so a candidate is charged only with what lies beyond its noise; beside another
    reference nobody knows that, and its predictions are not charged to it.
    """

    max_mismatch_rate: float | None = 0.01
    alpha: float = 0.05
    min_pairs: int = 50
    error_rate: bool = True
    slow: bool = False
    has_noise: bool = False
    # In how much of the trial's traffic each ready address must have been compared.
    addresses_within_ns: int = 600 * 10**9
    # The unit of evidence on predictions, and how long it must have been gathered for a PASS.
    per_ns: int = 0
    min_duration_ns: int = 0
    # Of errors, refusals and slow requests of the split.
    spells: SpellTerms = field(default_factory=SpellTerms)

    @cached_property
    def windows(self) -> WindowTerms | None:
        """How predictions are taken by windows; None where they are not judged."""
        rate = self.max_mismatch_rate
        return None if rate is None else WindowTerms(Limit(rate), self.per_ns)

    @cached_property
    def log_needed(self) -> float:
        """What the logarithm of an e-value must reach."""
        return log(1.0 / self.alpha)


def gate_settings(config: GatesConfig, *, has_noise: bool) -> GateSettings:
    """Return what the file's gates ask; `has_noise`: the route has noise."""
    return GateSettings(
        max_mismatch_rate=config.max_mismatch_rate,
        alpha=config.alpha,
        min_pairs=config.min_pairs,
        error_rate=config.error_rate,
        slow=config.slow is not None,
        has_noise=has_noise,
        addresses_within_ns=config.addresses_within,
        per_ns=config.per,
        min_duration_ns=config.min_duration,
        spells=SpellTerms(config.spell, config.allowed_ratio),
    )

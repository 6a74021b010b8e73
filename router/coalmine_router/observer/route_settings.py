"""What the observer goes by, of one route: the file's settings, made ready once."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from coalmine_router.config.compare_section import CompareConfig, rules_digest
from coalmine_router.config.copies_section import Capture, KeptConfig
from coalmine_router.config.gates_section import GatesConfig
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.evidence.betting.spells import SpellTerms
from coalmine_router.observer.evidence.settings import GateSettings, gate_settings


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """How a route's answers are compared and judged, and what may be kept and told of them.

    `goes_by` is a digest of all that evidence and verdicts depend on. `segment_key` is a metadata
    key, or "".
    """

    compare: CompareConfig
    gates: GateSettings
    goes_by: str
    slow_over_ns: int | None = None
    segment_key: str = ""
    capture: Capture = "full"
    kept: KeptConfig = field(default_factory=KeptConfig)


def settings_of(config: RouteConfig) -> RouteSettings:
    """Return what the file says of a route."""
    slow = config.gates.slow
    segment_key = config.segment.metadata if config.segment else ""
    has_noise = bool(config.noise.share)
    slow_over_ns = slow.over if slow else None
    gates = gate_settings(config.gates, has_noise=has_noise)
    return RouteSettings(
        compare=config.compare,
        gates=gates,
        goes_by=_goes_by(rules_digest(config.compare), gates, slow_over_ns, segment_key),
        slow_over_ns=slow_over_ns,
        segment_key=segment_key,
        capture=config.capture,
        kept=config.kept,
    )


def _goes_by(rules: str, gates: GateSettings, slow_over_ns: int | None, segment_key: str) -> str:
    # Spelled out: a setting that a later program has must not end the trials of this one.
    told = (
        *(rules, gates.max_mismatch_rate, gates.alpha, gates.min_pairs, gates.error_rate),
        *(gates.has_noise, slow_over_ns, segment_key),
        *(gates.per_ns, gates.min_duration_ns),
        *(() if gates.spells == SpellTerms() else (gates.spells,)),
    )
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()


# Of a route that the file doesn't have.
_GATES: Final = gate_settings(GatesConfig(), has_noise=False)
UNSET: Final = RouteSettings(CompareConfig(), _GATES, goes_by="", capture="shapes")

"""What the observer goes by, of one route: the file's settings, made ready once."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from coalmine_router.config.compare import CompareConfig, digest
from coalmine_router.config.copies import Capture, KeptConfig
from coalmine_router.config.gates import GatesConfig
from coalmine_router.config.route import RouteConfig
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
    told = (digest(config.compare), config.gates.model_dump_json(), has_noise)
    return RouteSettings(
        compare=config.compare,
        gates=gate_settings(config.gates, has_noise=has_noise),
        goes_by=hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest(),
        slow_over_ns=slow.over if slow else None,
        segment_key=segment_key,
        capture=config.capture,
        kept=config.kept,
    )


# Of a route that the file doesn't have.
_GATES: Final = gate_settings(GatesConfig(), has_noise=False)
UNSET: Final = RouteSettings(CompareConfig(), _GATES, goes_by="", capture="shapes")

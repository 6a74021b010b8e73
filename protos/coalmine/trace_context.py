"""W3C trace context by hand: the hot path needs ids and one flag, not a tracing library. Pure.

Source: https://www.w3.org/TR/trace-context/.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# A tracestate's members; of others, and of more, OpenTelemetry logs a line for each request.
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_MEMBERS_MAX: Final = 32
_RATIO_BITS: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span, as its traceparent gives it."""

    trace_id: bytes
    span_id: bytes
    sampled: bool


def parse(traceparent: str) -> Parent | None:
    """Return the parent, or None where the header is not a valid one: then a new trace begins."""
    found = _FORM.fullmatch(traceparent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = bytes.fromhex(found[2]), bytes.fromhex(found[3])
    if not any(trace_id) or not any(span_id):
        return None
    return Parent(trace_id, span_id, sampled=bool(int(found[4], 16) & 1))


def is_tracestate(text: str) -> bool:
    """Return whether a tracestate says something that can be read."""
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    return 0 < len(members) <= _MEMBERS_MAX and all(map(_MEMBER.fullmatch, members))


def trace_ids(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return what a log line says of the caller's span; nothing without a valid traceparent."""
    given = next((value for key, value in metadata if key == TRACEPARENT), "")
    parent = parse(str(given))
    if parent is None:
        return {}
    return {"trace_id": parent.trace_id.hex(), "span_id": parent.span_id.hex()}


def traceparent(trace_id: bytes, span_id: bytes, *, sampled: bool) -> str:
    """Return the traceparent for a call made under `span_id`."""
    return f"00-{trace_id.hex()}-{span_id.hex()}-{'01' if sampled else '00'}"


@dataclass(frozen=True, slots=True)
class HeadSampler:
    """The head decision: the parent's flag where `parent_based`, else a share of trace ids."""

    ratio: float
    parent_based: bool

    def is_sampled(self, trace_id: bytes, parent: Parent | None) -> bool:
        """Return whether the trace is kept from its start."""
        if parent is not None and self.parent_based:
            return parent.sampled
        low = int.from_bytes(trace_id[8:], "big")
        return low < round(self.ratio * (_RATIO_BITS + 1))


def sampler_from(environ: Mapping[str, str]) -> HeadSampler:
    """Return the sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for.

    Raises ValueError, in one line, for a name or ratio that doesn't exist.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    based = name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    ratios = {"always_on": 1.0, "always_off": 0.0}
    if kind == "traceidratio":
        return HeadSampler(
            _sampling_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG") or "1"), parent_based=based
        )
    if kind not in ratios:
        raise ValueError(f"OTEL_TRACES_SAMPLER: unknown sampler '{name}'")
    return HeadSampler(ratios[kind], parent_based=based)


def _sampling_ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, got '{text}'")
    return ratio

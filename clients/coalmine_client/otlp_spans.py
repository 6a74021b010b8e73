"""Spans in OTLP JSON, the form of trace files: one object a line. Pure.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

# SpanKind and StatusCode of OTLP.
SERVER: Final = 2
CLIENT: Final = 3
ERROR: Final = 2

KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES: Final = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a span."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span; ids are hex, `parent_id` is empty at a root, times are nanoseconds since the epoch.

    `links` are trace id and span id of others. `resource` is the OTLP object that holds this span
    alone, to write it out again.
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: int
    started_ns: int
    ended_ns: int
    status: int
    status_text: str
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]
    links: tuple[tuple[str, str], ...]
    resource: Json

    @property
    def duration_ns(self) -> int:
        """How long it took; never less than nothing."""
        return max(0, self.ended_ns - self.started_ns)


def spans_of(line: str) -> list[Span]:
    """Return the spans of one line. Raises ValueError, in one line, where it is not OTLP JSON."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(content, dict) or "resourceSpans" not in content:
        raise ValueError("a line of a trace file has no resourceSpans")
    try:
        return list(_spans_in(content))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("its spans are not those of OTLP JSON") from None


def line_of(spans: Iterable[Span]) -> str:
    """Return the spans again as a line of OTLP JSON, those of a resource together."""
    groups: dict[str, Json] = {}
    for span in spans:
        (scope,) = span.resource["scopeSpans"]
        bare = {**span.resource, "scopeSpans": [{**scope, "spans": []}]}
        group = groups.setdefault(json.dumps(bare, sort_keys=True), bare)
        group["scopeSpans"][0]["spans"] += scope["spans"]
    return json.dumps({"resourceSpans": list(groups.values())}, separators=(",", ":"))


def _spans_in(content: Json) -> Iterator[Span]:
    for resource in content["resourceSpans"]:
        service = str(_attributes_of(resource.get("resource", {})).get("service.name", ""))
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                alone = {**resource, "scopeSpans": [{**scope, "spans": [span]}]}
                yield _parse_span(span, service, alone)


def _parse_span(span: Json, service: str, resource: Json) -> Span:
    status = span.get("status") or {}
    return Span(
        trace_id=str(span["traceId"]),
        span_id=str(span["spanId"]),
        parent_id=str(span.get("parentSpanId", "")),
        service=service,
        name=str(span["name"]),
        kind=int(span.get("kind", 0)),
        started_ns=_parse_time_ns(span.get("startTimeUnixNano", 0)),
        ended_ns=_parse_time_ns(span.get("endTimeUnixNano", 0)),
        status=int(status.get("code", 0)),
        status_text=str(status.get("message", "")),
        attributes=_attributes_of(span),
        events=tuple(
            Event(str(each["name"]), _attributes_of(each)) for each in span.get("events", ())
        ),
        links=tuple((str(each["traceId"]), str(each["spanId"])) for each in span.get("links", ())),
        resource=resource,
    )


def _parse_time_ns(value: Any) -> int:
    time_ns = int(value)
    if not 0 <= time_ns < 2**64:
        raise ValueError("times are fixed64")
    return time_ns


def _attributes_of(holder: Json) -> dict[str, Any]:
    return {str(each["key"]): _plain_value(each["value"]) for each in holder.get("attributes", ())}


def _plain_value(value: Json) -> Any:
    """Return the one value of an OTLP AnyValue; numbers that JSON has no word for are texts."""
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_plain_value(each) for each in value["arrayValue"].get("values", ())]
    held = next(iter(value.values()), None)
    if isinstance(held, float) and not math.isfinite(held):
        return f"{held:g}"
    return held

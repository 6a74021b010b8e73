"""The JSON of `coalmine traces`. Pure; fields may join, none that is here changes or goes."""

from collections.abc import Mapping, Sequence

from coalmine_client.cli.json_values import Json, iso_time
from coalmine_client.otlp_spans import KINDS, STATUSES, Span


def traces_json(found: Mapping[str, Sequence[Span]]) -> Json:
    """Return {traces: [{trace_id, spans: [span]}]}; spans by their beginnings."""
    return {
        "traces": [
            {"trace_id": trace_id, "spans": [_span_json(each) for each in _in_order(spans)]}
            for trace_id, spans in found.items()
        ]
    }


def _in_order(spans: Sequence[Span]) -> list[Span]:
    return sorted(spans, key=lambda each: (each.started_ns, each.span_id))


def _span_json(of: Span) -> Json:
    return {
        "span_id": of.span_id,
        "parent_id": of.parent_id or None,
        "service": of.service,
        "name": of.name,
        "kind": _word_at(KINDS, of.kind),
        "started_at": iso_time(of.started_ns),
        "duration_ms": of.duration_ns / 1e6,
        "status": _word_at(STATUSES, of.status),
        "status_text": of.status_text,
        "attributes": dict(of.attributes),
        "events": [{"name": each.name, "attributes": dict(each.attributes)} for each in of.events],
        "links": [{"trace_id": trace_id, "span_id": span_id} for trace_id, span_id in of.links],
    }


def _word_at(words: Sequence[str], number: int) -> str:
    return words[number] if 0 <= number < len(words) else words[0]

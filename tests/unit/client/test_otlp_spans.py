"""Spans in OTLP JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_client.otlp_spans import Span, spans_of

SPAN = {"traceId": "t1", "spanId": "s1", "name": "call"}


def line(*spans: Any, service: str = "coalmine-router") -> str:
    attributes = [{"key": "service.name", "value": {"stringValue": service}}]
    scopes = [{"scope": {"name": "here"}, "spans": list(spans)}]
    return json.dumps(
        {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": scopes}]}
    )


def one(**more: Any) -> Span:
    (span,) = spans_of(line({**SPAN, **more}))
    return span


def test_a_span_has_its_place_its_times_its_status_and_its_service() -> None:
    span = one(
        parentSpanId="s0",
        kind=3,
        startTimeUnixNano="1000",
        endTimeUnixNano="3500",
        status={"code": 2, "message": "gone"},
    )
    assert (span.trace_id, span.span_id, span.parent_id) == ("t1", "s1", "s0")
    assert (span.service, span.name, span.kind) == ("coalmine-router", "call", 3)
    assert (span.started_ns, span.duration_ns) == (1_000, 2_500)
    assert (span.status, span.status_text) == (2, "gone")


def test_what_is_left_out_is_nothing() -> None:
    span = one()
    assert (span.parent_id, span.kind, span.duration_ns, span.status) == ("", 0, 0, 0)
    assert (dict(span.attributes), span.events, span.links) == ({}, (), ())


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"stringValue": "x"}, "x"),
        ({"intValue": "7"}, 7),
        ({"intValue": 7}, 7),
        ({"doubleValue": 0.5}, 0.5),
        ({"doubleValue": float("inf")}, "inf"),
        ({"doubleValue": "NaN"}, "NaN"),
        ({"boolValue": True}, True),
        ({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}}, [1, "b"]),
        ({}, None),
    ],
    ids=str,
)
def test_every_kind_of_value_is_read(value: Any, read: object) -> None:
    assert one(attributes=[{"key": "a", "value": value}]).attributes == {"a": read}


def test_events_and_links_are_read() -> None:
    event = {"name": "e", "attributes": [{"key": "k", "value": {"stringValue": "v"}}]}
    span = one(events=[event], links=[{"traceId": "t2", "spanId": "s9"}])
    assert (span.events[0].name, span.events[0].attributes) == ("e", {"k": "v"})
    assert span.links == (("t2", "s9"),)


def test_each_span_can_be_written_out_alone_and_read_again() -> None:
    first, second = spans_of(line(SPAN, {**SPAN, "spanId": "s2"}))
    assert spans_of(json.dumps({"resourceSpans": [second.resource]})) == [second]
    assert first.span_id == "s1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ('{"resourceSpans": [', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no resourceSpans"),
        ("[]", "no resourceSpans"),
        ("7", "no resourceSpans"),
        ('{"resourceSpans": 7}', "not those of OTLP"),
        ('{"resourceSpans": [{"scopeSpans": [{}]}]}', "not those of OTLP"),
        (line({"name": "no ids"}), "not those of OTLP"),
        (line({**SPAN, "startTimeUnixNano": "soon"}), "not those of OTLP"),
        (line({**SPAN, "startTimeUnixNano": "-1"}), "not those of OTLP"),
        (line({**SPAN, "startTimeUnixNano": str(2**64)}), "not those of OTLP"),
        (line({**SPAN, "attributes": [{"key": "a"}]}), "not those of OTLP"),
    ],
    ids=lambda each: each[:40],
)
def test_what_is_not_otlp_json_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        spans_of(text)
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resource", "scopeSpans", "spans", "attributes", "key", "value", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_the_json_holds_it_is_spans_or_a_value_error(content: object) -> None:
    try:
        found = spans_of(json.dumps({"resourceSpans": content}))
    except ValueError:
        return
    assert all(isinstance(each, Span) for each in found)

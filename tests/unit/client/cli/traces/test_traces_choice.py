"""Which traces are shown."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_client.cli.traces.traces_choice import (
    SPANS_MAX,
    is_any,
    is_mismatch,
    newest_ids,
    spans_by_trace,
)
from coalmine_client.otlp_spans import Span

OUTCOME = "coalmine.compare.outcome"


def span(trace_id: str, started_ns: int = 0, span_id: str = "s", **more: Any) -> Span:
    fields: dict[str, Any] = {
        "parent_id": "",
        "service": "coalmine-router",
        "name": "call",
        "kind": 1,
        "ended_ns": started_ns,
        "status": 0,
        "status_text": "",
        "attributes": {},
        "events": (),
        "links": (),
        "resource": {},
        **more,
    }
    return Span(trace_id=trace_id, span_id=span_id, started_ns=started_ns, **fields)


def test_the_newest_come_first_and_no_more_than_asked_for() -> None:
    spans = [span("a", 1), span("b", 5), span("c", 3), span("d", 2)]
    assert newest_ids(spans, 2, is_any) == ["b", "c"]
    assert newest_ids(spans, 9, is_any) == ["b", "c", "d", "a"]
    assert newest_ids([], 9, is_any) == []


def test_a_trace_that_was_given_up_comes_back_with_a_newer_span() -> None:
    assert newest_ids([span("a", 1), span("b", 2), span("a", 3)], 1, is_any) == ["a"]


def test_a_trace_grown_newer_is_not_the_one_that_goes() -> None:
    spans = [span("a", 1), span("b", 2), span("a", 9), span("c", 5)]
    assert newest_ids(spans, 2, is_any) == ["a", "c"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 50)), max_size=60),
    st.integers(1, 6),
)
def test_it_is_what_sorting_all_traces_by_their_latest_span_gives(
    seen: list[tuple[str, int]], limit: int
) -> None:
    # No two at the same time: which of those comes first is nobody's business.
    spans = [span(trace_id, at * 100 + place) for place, (trace_id, at) in enumerate(seen)]
    latest = {each.trace_id: 0 for each in spans}
    for each in spans:
        latest[each.trace_id] = max(latest[each.trace_id], each.started_ns)
    expected = sorted(latest, key=lambda each: -latest[each])[:limit]
    assert newest_ids(spans, limit, is_any) == expected


def test_choosing_keeps_no_more_than_the_newest_whatever_the_files_hold() -> None:
    chance = random.Random(7)
    spans = (span(str(each), chance.randrange(10**9)) for each in range(20_000))
    assert len(newest_ids(spans, 50, is_any)) == 50


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({OUTCOME: "mismatch"}, True),
        ({OUTCOME: "mismatch", "coalmine.compare.role": "audit"}, True),
        ({OUTCOME: "mismatch", "coalmine.compare.role": "noise"}, False),
        ({OUTCOME: "match"}, False),
        ({}, False),
    ],
)
def test_a_mismatch_is_one_of_a_candidate(attributes: dict[str, str], wanted: bool) -> None:
    assert is_mismatch(span("a", attributes=attributes)) is wanted


def test_spans_are_collected_by_trace_each_once_in_the_order_of_the_ids() -> None:
    spans = [span("a", 1, "1"), span("b", 2, "1"), span("a", 1, "1"), span("a", 3, "2")]
    found = spans_by_trace(spans, ["b", "a", "none"])
    assert {key: [each.span_id for each in value] for key, value in found.items()} == {
        "b": ["1"],
        "a": ["1", "2"],
    }
    assert list(found) == ["b", "a"]


def test_a_trace_without_end_is_cut() -> None:
    spans = (span("a", each, str(each)) for each in range(SPANS_MAX + 50))
    assert len(spans_by_trace(spans, ["a"])["a"]) == SPANS_MAX

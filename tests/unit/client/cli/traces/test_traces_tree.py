"""The spans of a trace as a tree."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine_client.cli.traces.traces_tree import branches
from coalmine_client.otlp_spans import Span


def span(own: str, parent: str = "", started_ns: int = 0) -> Span:
    return Span("t", own, parent, "r", own, 1, started_ns, started_ns, 0, "", {}, (), (), {})


def drawn(*spans: Span) -> list[str]:
    return [branch.lines + branch.span.name for branch in branches(spans)]


def test_spans_hang_below_their_parents_in_the_order_of_their_beginnings() -> None:
    assert drawn(
        span("execute", "server", 4),
        span("compare", "root", 9),
        span("server", "primary", 3),
        span("shadow", "root", 5),
        span("primary", "root", 2),
        span("queue", "server", 3),
        span("root", "the caller's", 1),
    ) == [
        "root",
        "├─ primary",
        "│  └─ server",
        "│     ├─ queue",
        "│     └─ execute",
        "├─ shadow",
        "└─ compare",
    ]


def test_spans_whose_parents_are_in_another_file_are_roots() -> None:
    assert drawn(span("b", "gone", 2), span("c", "b", 3), span("a", "", 1)) == ["a", "b", "└─ c"]


def test_spans_that_are_each_others_parents_are_shown_all_the_same() -> None:
    assert drawn(span("a", "b"), span("b", "a"), span("own", "own")) == ["a", "└─ b", "own"]


def test_a_chain_of_any_length_stops_moving_to_the_right() -> None:
    chain = [span(str(each), str(each - 1)) for each in range(5_000)]
    lines = drawn(*chain)
    assert len(lines) == 5_000
    assert max(map(len, lines)) < 80


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5)), max_size=30))
def test_every_span_is_there_exactly_once(edges: list[tuple[int, int, int]]) -> None:
    spans = {own: span(str(own), str(parent), at) for own, parent, at in edges}
    found = [branch.span.span_id for branch in branches(list(spans.values()))]
    assert sorted(found) == sorted(str(own) for own in spans)

"""Counts of comparisons."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.compare import Comparison, Outcome, OutputResult
from coalmine_router.observer.evidence import (
    OTHER,
    OUTPUTS_MAX,
    PAIRS_MAX,
    Evidence,
    Pair,
    PairEvidence,
)

PAIR = Pair("digits", "stable", "canary")
OUTCOMES: list[Outcome] = ["match", "mismatch", "error", "skipped"]


def test_outcomes_are_counted_by_pair() -> None:
    evidence = Evidence()
    for outcome in ("match", "match", "mismatch"):
        evidence.add(PAIR, Comparison(outcome))
    evidence.add(PAIR._replace(candidate="int8"), Comparison("error"))
    evidence.add(PAIR._replace(route="faces"), Comparison("skipped"))
    found = {pair.candidate: dict(each.outcomes) for pair, each in evidence.pairs("digits")}
    assert found == {"canary": {"match": 2, "mismatch": 1}, "int8": {"error": 1}}
    assert len(list(evidence.pairs())) == 3


def test_an_ignored_output_counts_as_neither() -> None:
    counts = PairEvidence()
    counts.add(
        Comparison("match", outputs=(OutputResult("y", "match"), OutputResult("at", "ignored")))
    )
    assert list(counts.outputs) == ["y"]


def test_the_largest_distance_is_kept_of_matches_too() -> None:
    counts = PairEvidence()
    for distance in (0.1, 0.3, 0.2):
        counts.add(Comparison("match", outputs=(OutputResult("y", "match", distance),)))
    assert counts.outputs["y"].max_abs_diff == 0.3


def test_outputs_over_the_bound_are_counted_together() -> None:
    counts = PairEvidence()
    many = tuple(OutputResult(f"y{each}", "mismatch") for each in range(10_000))
    for _ in range(2):
        counts.add(Comparison("mismatch", outputs=many))
    assert len(counts.outputs) == OUTPUTS_MAX
    assert counts.outputs["y0"].mismatch == 2
    assert sum(each.mismatch for each in counts.outputs.values()) == 20_000
    assert counts.outputs[OTHER].mismatch == 2 * (10_000 - OUTPUTS_MAX + 1)


def test_pairs_over_the_bound_are_counted_together() -> None:
    evidence = Evidence()
    for each in range(2_000):
        evidence.add(Pair("digits", "stable", str(each)), Comparison("match"))
    counts = dict(evidence.pairs())
    assert len(counts) == PAIRS_MAX
    assert counts[Pair(OTHER, OTHER, OTHER)].outcomes["match"] == 2_000 - PAIRS_MAX + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(OUTCOMES))))
def test_every_comparison_is_counted_once(made: list[tuple[str, Outcome]]) -> None:
    evidence = Evidence()
    for candidate, outcome in made:
        evidence.add(PAIR._replace(candidate=candidate), Comparison(outcome))
    assert sum(each.outcomes.total() for _, each in evidence.pairs()) == len(made)

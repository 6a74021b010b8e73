"""What was compared since the process began."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.comparison.result import Comparison, Outcome, OutputResult
from coalmine_router.observer.evidence.counts import OTHER, OUTPUTS_MAX
from coalmine_router.observer.evidence.pair import PAIRS_MAX, Pair
from coalmine_router.observer.evidence.tally import PairTally, Tally

PAIR = Pair("digits", "stable", "canary")
OUTCOMES: list[Outcome] = ["match", "mismatch", "error", "skipped", "ignored"]


def test_outcomes_and_kinds_are_counted_by_pair() -> None:
    tally = Tally()
    tally.add(PAIR, Comparison("match"))
    for _ in range(2):
        tally.add(PAIR, Comparison("mismatch", "value"))
    tally.add(PAIR._replace(candidate="int8"), Comparison("error", "status"))
    found = {pair.candidate: each for pair, each in tally.pairs()}
    assert dict(found["canary"].outcomes) == {"match": 1, "mismatch": 2}
    assert dict(found["canary"].kinds) == {"value": 2}
    assert dict(found["int8"].kinds) == {"status": 1}


def test_an_ignored_output_is_not_counted_and_a_skipped_one_apart() -> None:
    counts = PairTally()
    results = (OutputResult("y", "match"), OutputResult("z", "skipped"))
    counts.add(Comparison("match", outputs=(*results, OutputResult("at", "ignored"))))
    assert {name: dict(each) for name, each in counts.outputs.items()} == {
        "y": {"match": 1},
        "z": {"skipped": 1},
    }


def test_outputs_over_the_bound_are_counted_together() -> None:
    counts = PairTally()
    many = tuple(OutputResult(f"y{each}", "mismatch") for each in range(10_000))
    for _ in range(2):
        counts.add(Comparison("mismatch", outputs=many))
    assert len(counts.outputs) == OUTPUTS_MAX
    assert counts.outputs["y0"]["mismatch"] == 2
    assert sum(each.total() for each in counts.outputs.values()) == 20_000
    assert counts.outputs[OTHER]["mismatch"] == 2 * (10_000 - OUTPUTS_MAX + 1)


def test_pairs_over_the_bound_are_counted_together() -> None:
    tally = Tally()
    for each in range(2_000):
        tally.add(Pair("digits", "stable", str(each)), Comparison("match"))
    counts = dict(tally.pairs())
    assert len(counts) == PAIRS_MAX
    assert counts[Pair(OTHER, OTHER, OTHER)].outcomes["match"] == 2_000 - PAIRS_MAX + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(OUTCOMES))))
def test_every_comparison_is_counted_once(made: list[tuple[str, Outcome]]) -> None:
    tally = Tally()
    for candidate, outcome in made:
        tally.add(PAIR._replace(candidate=candidate), Comparison(outcome))
    assert sum(each.outcomes.total() for _, each in tally.pairs()) == len(made)

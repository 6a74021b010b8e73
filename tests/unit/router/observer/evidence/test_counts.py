"""Evidence: sums of what was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.comparison.result import Comparison, OutputResult
from coalmine_router.observer.evidence.counts import (
    OTHER,
    OUTPUTS_MAX,
    SEGMENTS_MAX,
    WEIGHTS_MAX,
    Events,
    Evidence,
    Shares,
)
from coalmine_router.observer.evidence.differences import Differences
from tests.doubles.evidence import a_comparison, add_with_noise


def test_a_batch_is_one_request_by_the_share_of_its_rows() -> None:
    evidence = Evidence()
    evidence.add(a_comparison(1, rows=4))
    evidence.add(a_comparison(0, rows=64))
    assert (evidence.shares.mismatch, evidence.shares.match) == (0.25, 1.75)
    assert (evidence.shares.requests, evidence.shares.mean) == (2, 0.125)
    assert (evidence.rows, evidence.rows_mismatch) == (68, 1)


def test_what_was_not_judged_is_counted_and_says_nothing_of_predictions() -> None:
    evidence = Evidence()
    for outcome in ("error", "skipped", "ignored"):
        evidence.add(Comparison(outcome, "status" if outcome == "error" else ""), segment="a")
    assert dict(evidence.outcomes) == {"error": 1, "skipped": 1, "ignored": 1}
    assert dict(evidence.kinds) == {"status": 1}
    assert evidence.shares == evidence.segments["a"].shares == Shares()
    assert evidence.outputs == {}


def test_ignored_and_skipped_outputs_count_as_neither() -> None:
    evidence = Evidence()
    results = (
        OutputResult("y", "match"),
        OutputResult("at", "ignored"),
        OutputResult("id", "skipped"),
    )
    evidence.add(Comparison("match", outputs=results, rows=1))
    assert list(evidence.outputs) == ["y"]


def test_an_answer_that_can_not_be_read_mismatches_as_a_whole() -> None:
    evidence = Evidence()
    evidence.add(Comparison("mismatch", "malformed"))
    evidence.add(a_comparison(1))
    assert (evidence.whole.raw.mismatch, evidence.whole.raw.match) == (1.0, 1.0)
    assert evidence.shares.mismatch == 1.25


def test_with_noise_the_difference_of_each_output_is_counted() -> None:
    evidence = Evidence()
    add_with_noise(evidence, a_comparison(3), a_comparison(1))
    add_with_noise(evidence, a_comparison(0), a_comparison(4))
    evidence.add(a_comparison(2))
    scores = evidence.outputs["scores"]
    assert (evidence.noise_pairs, evidence.moments) == (2, 2)
    assert (scores.raw.requests, scores.noise.requests) == (3, 2)
    assert (scores.beyond_noise.worse, scores.beyond_noise.better) == (0.5, 1.0)
    assert evidence.outputs["label"].beyond_noise == Differences(same=2.0)


def test_noise_that_could_not_be_judged_is_no_noise() -> None:
    evidence = Evidence()
    assert evidence.add_noise(a_comparison(3), Comparison("skipped", "status")) == {}
    assert evidence.add_noise(Comparison("error", "status"), a_comparison(0)) == {}
    assert (evidence.noise_pairs, evidence.outputs) == (0, {})


def test_requests_of_one_moment_are_one_observation_beyond_noise_and_as_many_of_noise() -> None:
    evidence = Evidence()
    found = [evidence.add_noise(a_comparison(each), a_comparison(1)) for each in (4, 3, 1)]
    assert [each["scores"] for each in found] == [0.75, 0.5, 0.0]
    assert evidence.outputs["scores"].beyond_noise == Differences(), "until the moment is over"
    evidence.add_moment({"scores": 0.5, "": 0.0})
    assert (evidence.noise_pairs, evidence.moments) == (3, 1)
    scores = evidence.outputs["scores"]
    assert (scores.noise.requests, scores.beyond_noise) == (3, Differences(0.5, 0.5))
    assert evidence.whole.beyond_noise == Differences(same=1.0)


def test_an_answer_that_can_not_be_read_differs_as_a_whole_beside_noise_too() -> None:
    found = Evidence().add_noise(Comparison("mismatch", "malformed"), a_comparison(0))
    assert found == {"": 1.0}


def test_outputs_and_segments_over_the_bound_are_counted_together() -> None:
    evidence = Evidence()
    many = tuple(OutputResult(f"y{each}", "mismatch", rows_mismatch=1) for each in range(1_000))
    for each in range(200):
        evidence.add(
            Comparison("mismatch", outputs=many, rows=1, rows_mismatch=1), segment=f"{each}"
        )
    assert len(evidence.outputs) == OUTPUTS_MAX
    assert len(evidence.segments) == SEGMENTS_MAX
    assert evidence.outputs[OTHER].mismatch == 200 * (1_000 - OUTPUTS_MAX + 1)
    assert sum(each.shares.requests for each in evidence.segments.values()) == 200


def test_events_over_the_bound_of_weights_are_left_out_and_counted() -> None:
    events = Events()
    for weight in range(WEIGHTS_MAX + 7):
        events.add((weight, 10_000), is_candidate=True)
    assert (events.total, events.of_candidate, events.left_out) == (WEIGHTS_MAX, WEIGHTS_MAX, 7)
    events.add((0, 10_000), is_candidate=False)
    assert (events.total, events.of_candidate) == (WEIGHTS_MAX + 1, WEIGHTS_MAX)


@given(st.lists(st.floats(-1, 1), max_size=30))
def test_differences_keep_their_mean_and_number(differences: list[float]) -> None:
    counted = Differences()
    for each in differences:
        counted.add(each)
    assert counted.requests == len(differences)
    if differences:
        assert counted.mean == pytest.approx(sum(differences) / len(differences), abs=1e-9)


def test_events_that_are_added_up_stay_within_the_bound_of_weights() -> None:
    one, other = Events(), Events()
    for weight in range(WEIGHTS_MAX):
        one.add((weight, 1), is_candidate=False)
    other.add((0, 1), is_candidate=True)
    other.add((WEIGHTS_MAX, 1), is_candidate=True)
    one.add_all(other)
    assert len(one.by_weights) == WEIGHTS_MAX
    assert (one.by_weights[0, 1], one.left_out) == ([2, 1], 1)

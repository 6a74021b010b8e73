"""What an operator is told of a route's evidence."""

from collections import Counter

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.comparer import ComparingCounts
from coalmine_router.observer.comparison.result import Comparison
from coalmine_router.observer.evidence.counts import OutputEvidence, SegmentEvidence, Shares
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.interval import Rate, difference_of, rate_of
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.verdict import Verdict, Word
from coalmine_router.observer.output.route_status import (
    comparing_message,
    copy_counts,
    fill_trials,
    route_verdict,
)
from coalmine_router.observer.output.trial_status import trial_counts
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey
from tests.doubles.evidence import FAIL, KEY, PAIR, TRACE_ID, a_comparison, a_trial

GATES = GateSettings()


def trial(word: Word, reference: str = "stable") -> Trial:
    pair, verdict = PAIR._replace(reference=reference), Verdict(word)
    return Trial(pair, KEY, 1, 1, "first", verdict=verdict, kept=verdict)


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ([], ""),
        (["pass"], "pass"),
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive"], "inconclusive"),
        (["pass", "inconclusive", "fail"], "fail"),
        (["fail"], "fail"),
    ],
)
def test_one_candidate_that_fails_fails_the_route_and_all_must_pass(
    words: list[Word], verdict: str
) -> None:
    assert route_verdict([trial(word) for word in words]) == verdict


def test_a_verdict_is_told_once_the_disk_was_given_it() -> None:
    one = trial("inconclusive")
    one.verdict = FAIL
    assert route_verdict([one]) == trial_counts(one, GATES).verdict.verdict == "inconclusive"
    one.kept = FAIL
    assert route_verdict([one]) == trial_counts(one, GATES).verdict.verdict == "fail"


def test_a_shadow_beside_a_bad_canary_does_not_fail_the_route() -> None:
    assert route_verdict([trial("pass"), trial("fail", reference="canary")]) == "pass"
    assert route_verdict([trial("fail", reference="canary")]) == ""


def test_the_status_has_the_verdict_and_what_was_found_of_each_candidate() -> None:
    status = pb.RouteStatus()
    fill_trials(status, [a_trial(), trial("pass")], GATES)
    assert status.verdict == "fail"
    assert [each.verdict.verdict for each in status.comparisons] == ["fail", "pass"]


def test_a_trial_is_told_with_its_counts_versions_and_verdict() -> None:
    found = trial_counts(a_trial(4), GATES)
    assert (found.reference, found.candidate) == ("stable", "canary")
    assert (found.match, found.mismatch, found.error, found.skipped) == (3, 3, 3, 0)
    assert dict(found.kinds) == {"value": 3, "status": 3}
    assert (found.rows, found.rows_mismatch, found.noise_pairs) == (24, 6, 3)
    assert found.trial == pb.Trial(
        number=4, reference_version="1", candidate_version="2", began_ns=1, why="first"
    )
    assert (found.verdict.verdict, found.verdict.at_ns) == ("fail", 77)
    assert found.verdict.trace_id == TRACE_ID
    assert found.verdict.gates[0] == pb.Gate(
        gate="mismatch",
        finding="fail",
        reason="too many",
        log_fail=4.5,
        log_pass=-1.25,
        log_needed=3.0,
        observed=420,
    )
    assert found.verdict.reason == FAIL.reason


def test_rates_come_with_intervals_that_hold_them() -> None:
    found = trial_counts(a_trial(), GATES)
    assert found.mismatch_rate.value == 0.25
    assert found.mismatch_rate.requests == 6
    assert 0 <= found.mismatch_rate.low < 0.25 < found.mismatch_rate.high <= 1
    scores = found.outputs[0]
    assert (scores.output, scores.rule, scores.rows, scores.rows_mismatch) == (
        *("scores", "close"),
        *(24, 6),
    )
    assert (scores.raw.value, scores.noise.value) == (0.25, 0.25)
    assert scores.beyond_noise.value == 0.25
    assert scores.beyond_noise.low < 0 < scores.beyond_noise.high


def test_what_was_not_counted_has_no_rate() -> None:
    found = trial_counts(trial("inconclusive"), GATES)
    assert not found.HasField("mismatch_rate")
    one = trial("inconclusive")
    one.evidence.add(a_comparison())
    (scores, label) = trial_counts(one, GATES).outputs
    assert scores.HasField("raw")
    assert not scores.HasField("noise")
    assert not label.HasField("beyond_noise")


def told(rate: pb.Rate) -> Rate:
    """Return the rate as the evidence has it."""
    return Rate(rate.value, rate.low, rate.high, rate.requests)


def test_each_of_many_outputs_and_segments_has_its_own_rates() -> None:
    one = trial("inconclusive")
    # Every other one has the sums of the one before it.
    numbers = [float(place // 2) for place in range(100)]
    for place, number in enumerate(numbers):
        one.evidence.outputs[f"output {place}"] = OutputEvidence(
            raw=Shares(number, 60.0),
            noise=Shares(60.0, number),
            beyond_noise=Differences(number, 60.0, 1.0),
        )
        one.evidence.segments[f"tenant {place}"] = SegmentEvidence(shares=Shares(number, 70.0))
    found = trial_counts(one, GATES)
    assert [each.output for each in found.outputs] == list(one.evidence.outputs)
    assert [each.name for each in found.segments] == list(one.evidence.segments)
    for number, output, segment in zip(numbers, found.outputs, found.segments, strict=True):
        assert told(output.raw) == pytest.approx(rate_of(Shares(number, 60.0), 0.05))
        assert told(output.noise) == pytest.approx(rate_of(Shares(60.0, number), 0.05))
        beyond = difference_of(Differences(number, 60.0, 1.0), 0.05)
        assert told(output.beyond_noise) == pytest.approx(beyond)
        assert told(segment.mismatch_rate) == pytest.approx(rate_of(Shares(number, 70.0), 0.001))


def test_a_trial_that_goes_on_is_told_as_it_is_now() -> None:
    one, scores = trial("inconclusive"), OutputEvidence()
    one.evidence.outputs["scores"] = scores
    for share, requests in [(0.0, 1), (0.0, 2), (1.0, 3)]:
        scores.raw.add(share)
        scores.beyond_noise.add(share)
        (found,) = trial_counts(one, GATES).outputs
        assert told(found.beyond_noise) == difference_of(scores.beyond_noise, GATES.alpha)
        assert told(found.raw) == rate_of(scores.raw, GATES.alpha)
        assert found.raw.requests == found.beyond_noise.requests == requests
        assert trial_counts(one, GATES).outputs[0] == found


def test_a_segment_is_judged_alone_with_a_share_of_alpha() -> None:
    one = trial("inconclusive")
    for _ in range(200):
        one.evidence.add(a_comparison(4), segment="bad")
        one.evidence.add(a_comparison(0), segment="good")
    one.evidence.add(Comparison("error", "status"), segment="failing")
    found = {each.name: each for each in trial_counts(one, GATES).segments}
    assert (found["bad"].verdict, found["good"].mismatch_rate.value) == ("fail", 0)
    assert (found["bad"].mismatch, found["good"].match, found["failing"].error) == (200, 200, 1)
    assert found["good"].verdict == "inconclusive"
    assert not found["failing"].HasField("mismatch_rate")
    assert found["bad"].mismatch_rate.low < rate_of(Shares(200.0, 0.0), GATES.alpha).low


def test_the_copies_of_a_queue_are_told_to_the_last_one() -> None:
    totals = CopyCounts(9, 1, 1, 1, 1, 2, 3, 1, Counter(queue_full=3), "half_open")
    found = copy_counts(CopyQueueKey("digits", "audit", "canary"), totals)
    assert (found.variant, found.role, found.circuit) == ("canary", "audit", "half_open")
    dropped = sum(found.dropped.values())
    assert found.offered == dropped + found.waiting + found.under_way + found.sent
    assert found.sent == found.timed_out + found.failed + found.answered
    assert (found.compared, found.uncompared) == (3, 1)


def test_how_comparing_keeps_up_is_told() -> None:
    assert comparing_message(ComparingCounts(5, 1_024, 2_500, 2, 90, 30)) == pb.Comparing(
        waiting=5, waiting_bytes=1_024, share_bp=2_500, processes=2, compared=90, left_out=30
    )


# ---------------------------------------------------------------- addresses


def test_a_trial_is_told_with_its_addresses_and_the_ready_ones_that_nobody_compared() -> None:
    ready = {"canary": ["10.0.0.2:8001", "10.0.0.3:8001"], "stable": ["10.0.0.1:8001"]}
    one = a_trial()
    found = trial_counts(one, GATES, lambda _, variant: ready[variant])
    assert [(each.address, each.ready, each.compared) for each in found.candidate_addresses] == [
        ("10.0.0.2:8001", True, 3),
        ("10.0.0.3:8001", True, 0),
        ("10.0.0.1:8001", False, 3),
    ]
    assert [(each.address, each.ready) for each in found.reference_addresses] == [
        ("10.0.0.1:8001", True),
        ("10.0.0.2:8001", False),
    ]
    assert (found.candidate_addresses[0].mismatch, found.candidate_addresses[0].seen_ns) == (3, 2)
    assert not any(each.stands_out for each in found.candidate_addresses)
    one.ended_ns = 7
    ended = trial_counts(one, GATES, lambda _, variant: ready[variant])
    assert not any(each.ready for each in ended.candidate_addresses), "it was long ago"


def test_the_address_that_stands_out_is_told() -> None:
    one = trial("fail")
    for at_ns in range(60):
        name = f"10.0.0.{at_ns % 3}:1"
        one.evidence.candidate_addresses.add(name, float(name == "10.0.0.1:1"), at_ns=at_ns)
    one.evidence.candidate_addresses.let_go = 2
    found = trial_counts(one, GATES)
    odd = [each.address for each in found.candidate_addresses if each.stands_out]
    assert (odd, found.addresses_let_go) == (["10.0.0.1:1"], 2)

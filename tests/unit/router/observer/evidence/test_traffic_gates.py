"""The gates on errors, slow requests and the split."""

import math

import pytest

from coalmine_router.observer.evidence.counts import Events, Evidence, Shares
from coalmine_router.observer.evidence.gates.traffic_gates import errors_gate, slow_gate, split_gate
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.split_events import log_more
from coalmine_router.observer.evidence.verdict import Gate

GATES = GateSettings(slow=True)
ERRORS, SLOW, SPLIT = Gate("errors"), Gate("slow"), Gate("split")


def events(total: int, own: int, weight_bp: int = 1_000) -> Events:
    return Events({(weight_bp, 10_000 - weight_bp): [total, own]})


def test_more_errors_than_the_candidates_share_fail_and_say_what_was_expected() -> None:
    found = errors_gate(Evidence(errors=events(60, 31)), GATES, ERRORS)
    assert found.finding == "fail"
    assert found.reason == ("31 of 60 errors were the candidate's, 6 expected by its weight")


def test_as_many_errors_as_its_share_are_no_evidence() -> None:
    found = errors_gate(Evidence(errors=events(600, 60)), GATES, ERRORS)
    assert (found.finding, found.log_fail) == ("open", 0.0)
    assert found.reason == "60 of 600 errors were the candidate's"


def test_errors_of_the_split_alone_have_half_of_the_stake() -> None:
    evidence = Evidence(errors=events(20, 6))
    found = errors_gate(evidence, GATES, ERRORS)
    exact = math.log((math.exp(log_more(evidence.errors)) + 1) / 2)
    assert found.log_fail == pytest.approx(max(exact, 0.0))


def test_copies_that_fail_count_once_enough_answers_were_compared() -> None:
    few = Evidence(failures=Shares(40.0, 49.0), shares=Shares(0.0, 49.0))
    enough = Evidence(failures=Shares(40.0, 50.0), shares=Shares(0.0, 50.0))
    assert errors_gate(few, GATES, ERRORS).finding == "open"
    found = errors_gate(enough, GATES, ERRORS)
    assert found.finding == "fail"
    assert found.reason.startswith("44.4 % of 90 copied requests failed (")


def test_copies_that_are_too_few_never_count_for_more_than_they_say() -> None:
    few = Evidence(failures=Shares(0.0, 49.0), shares=Shares(0.0, 49.0), errors=events(30, 12))
    found = errors_gate(few, GATES, ERRORS)
    of_copies = float(log_evidence(0.0, 49.0, 0.01).above)
    assert of_copies < 0
    exact = math.log((math.exp(log_more(few.errors)) + math.exp(of_copies)) / 2)
    assert found.log_fail == pytest.approx(exact)


def test_failures_within_what_is_allowed_pass() -> None:
    evidence = Evidence(failures=Shares(1.0, 900.0), shares=Shares(0.0, 900.0))
    assert errors_gate(evidence, GATES, ERRORS).finding == "pass"


def test_errors_after_failures_were_few_still_fail() -> None:
    evidence = Evidence(failures=Shares(0.0, 900.0), shares=Shares(0.0, 900.0))
    passed = errors_gate(evidence, GATES, ERRORS)
    evidence.errors = events(60, 40)
    assert errors_gate(evidence, GATES, passed).finding == "fail"


def test_slow_requests_beyond_its_share_fail() -> None:
    found = slow_gate(Evidence(slow=events(100, 40)), GATES, SLOW)
    assert found.finding == "fail"
    assert found.reason == (
        "40 of 100 slow requests were the candidate's, 10 expected by its weight"
    )
    assert slow_gate(Evidence(slow=events(100, 12)), GATES, SLOW).finding == "open"


def test_the_split_alarms_at_its_own_alpha() -> None:
    found = split_gate(Evidence(assigned=events(10_000, 1_250)), SPLIT)
    assert found.finding == "alarm"
    assert found.log_needed == pytest.approx(math.log(100))
    assert split_gate(Evidence(assigned=events(10_000, 1_010)), SPLIT).finding == "open"


def test_the_split_is_looked_at_again_when_there_is_a_64th_more() -> None:
    seen = split_gate(Evidence(assigned=events(6_400, 640)), SPLIT)
    assert split_gate(Evidence(assigned=events(6_499, 645)), seen) is seen
    assert split_gate(Evidence(assigned=events(6_500, 645)), seen).observed == 6_500


def test_a_gate_without_news_stays_as_it_is() -> None:
    assert errors_gate(Evidence(), GATES, ERRORS) is ERRORS
    assert slow_gate(Evidence(), GATES, SLOW) is SLOW
    assert split_gate(Evidence(), SPLIT) is SPLIT

"""The gates on errors, slow requests and the split."""

import math

import pytest

from coalmine_router.observer.evidence.betting.spells import SpellEvidence, SpellTerms
from coalmine_router.observer.evidence.counts import Events, Evidence, Shares
from coalmine_router.observer.evidence.gates.traffic_gates import errors_gate, slow_gate, split_gate
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import Gate

GATES = GateSettings(slow=True)
MINUTE_NS = 60 * 10**9
ERRORS, SLOW, SPLIT = Gate("errors"), Gate("slow"), Gate("split")


def events(total: int, own: int, weight_bp: int = 1_000) -> Events:
    return Events({(weight_bp, 10_000 - weight_bp): [total, own]})


def spells(number: int, of_each: int, own: int, weight: float = 0.1) -> SpellEvidence:
    """Return so many spells of so many events, some of them the candidate's own."""
    evidence = SpellEvidence()
    for spell in range(number):
        for event in range(of_each):
            evidence.add(spell * MINUTE_NS, weight, is_candidate=event < own)
        evidence.close_spell((spell + 1) * MINUTE_NS, SpellTerms())
    return evidence


@pytest.mark.parametrize("kind", ["errors", "refusals"])
def test_more_errors_or_refusals_than_its_share_fail_and_say_what_was_expected(kind: str) -> None:
    evidence = Evidence()
    setattr(evidence, kind, spells(6, 10, 8))
    found = errors_gate(evidence, GATES, ERRORS)
    assert found.finding == "fail"
    assert found.reason == f"48 of 60 {kind} were the candidate's, 6 expected by its weight"


def test_as_many_errors_as_its_share_are_no_evidence() -> None:
    found = errors_gate(Evidence(errors=spells(60, 10, 1)), GATES, ERRORS)
    assert found.finding == "open"
    assert found.log_fail < 0.1
    assert found.reason == "60 of 600 errors were the candidate's"


def test_errors_refusals_and_copies_share_the_stake() -> None:
    evidence = Evidence(errors=spells(4, 10, 4))
    found = errors_gate(evidence, GATES, ERRORS)
    of_split = (math.exp(evidence.errors.log_fail()) + 1) / 2
    assert found.log_fail == pytest.approx(math.log((of_split + 1) / 2))


def test_one_incident_however_long_is_one_observation() -> None:
    """A pod that crashes: a thousand errors, all of them the candidate's."""
    found = errors_gate(Evidence(errors=spells(1, 1_000, 1_000)), GATES, ERRORS)
    assert found.finding == "open"


def test_nothing_fails_before_five_events_of_its_own() -> None:
    few, enough = spells(4, 1, 1, 0.01), spells(5, 1, 1, 0.01)
    assert few.log_fail() == 0.0
    assert errors_gate(Evidence(errors=few), GATES, ERRORS).finding == "open"
    assert errors_gate(Evidence(errors=enough), GATES, ERRORS).finding == "fail"


def test_a_spell_that_goes_on_is_no_evidence_yet() -> None:
    evidence = Evidence(errors=spells(6, 10, 8))
    seen = errors_gate(evidence, GATES, ERRORS)
    evidence.errors.add(6 * MINUTE_NS, 0.1, is_candidate=True)
    assert errors_gate(evidence, GATES, seen) is seen


def test_as_many_times_stables_errors_as_are_allowed_are_no_evidence() -> None:
    twice, terms = SpellEvidence(), SpellTerms(allowed_ratio=2.0)
    for spell in range(200):
        for event in range(12):  # of 12, 2 are expected; at twice stable's rate, 12 / 3.5
            twice.add(spell * MINUTE_NS, 1 / 6, is_candidate=event < 3 + spell % 2)
        twice.close_spell((spell + 1) * MINUTE_NS, terms)
    assert errors_gate(Evidence(errors=twice), GATES, ERRORS).finding == "open"


def test_copies_that_fail_count_once_enough_answers_were_compared() -> None:
    few = Evidence(failures=Shares(40.0, 49.0), shares=Shares(0.0, 49.0))
    enough = Evidence(failures=Shares(40.0, 50.0), shares=Shares(0.0, 50.0))
    assert errors_gate(few, GATES, ERRORS).finding == "open"
    found = errors_gate(enough, GATES, ERRORS)
    assert found.finding == "fail"
    assert found.reason.startswith("44.4 % of 90 copied requests failed (")


def test_copies_that_are_too_few_never_count_for_more_than_they_say() -> None:
    few = Evidence(failures=Shares(0.0, 49.0), shares=Shares(0.0, 49.0), errors=spells(3, 10, 4))
    found = errors_gate(few, GATES, ERRORS)
    of_copies = float(log_evidence(0.0, 49.0, 0.01).above)
    assert of_copies < 0
    of_split = (math.exp(few.errors.log_fail()) + 1) / 2
    exact = math.log((of_split + math.exp(of_copies)) / 2)
    assert found.log_fail == pytest.approx(exact)


def test_failures_within_what_is_allowed_pass() -> None:
    evidence = Evidence(failures=Shares(1.0, 900.0), shares=Shares(0.0, 900.0))
    assert errors_gate(evidence, GATES, ERRORS).finding == "pass"


def test_errors_after_failures_were_few_still_fail() -> None:
    evidence = Evidence(failures=Shares(0.0, 900.0), shares=Shares(0.0, 900.0))
    passed = errors_gate(evidence, GATES, ERRORS)
    evidence.errors = spells(6, 10, 8)
    assert errors_gate(evidence, GATES, passed).finding == "fail"


def test_slow_requests_beyond_its_share_fail() -> None:
    found = slow_gate(Evidence(slow=spells(6, 10, 7)), GATES, SLOW)
    assert found.finding == "fail"
    assert found.reason == "42 of 60 slow requests were the candidate's, 6 expected by its weight"
    assert slow_gate(Evidence(slow=spells(10, 10, 1)), GATES, SLOW).finding == "open"


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

"""A candidate is charged with what it fails more often than stable's own second answers do."""

import random
from dataclasses import replace

import pytest

from coalmine_router.observer.comparison.result import Comparison
from coalmine_router.observer.evidence.counts import Evidence, Shares
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.gates.all_gates import verdict_after
from coalmine_router.observer.evidence.gates.traffic_gates import errors_gate
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Gate, Verdict
from tests.doubles.evidence import a_comparison, add_with_noise

NOISY = GateSettings(has_noise=True)
SAME, ERROR = a_comparison(0), Comparison("error", "status")


def verdict_of(
    chance: random.Random, candidate: float, stable: float, *, requests: int = 400
) -> Verdict:
    """Judge after each request, which the sides fail with these rates, until it is FAIL."""
    evidence, verdict = Evidence(), NO_VERDICT
    for _ in range(requests):
        ours, theirs = chance.random() < candidate, chance.random() < stable
        noise = Comparison("skipped", "status") if theirs else SAME
        add_with_noise(evidence, ERROR if ours else SAME, noise)
        evidence.failures.add(float(ours))
        evidence.failed_more.add(float(ours) - float(theirs))
        verdict = verdict_after(evidence, NOISY, verdict, at_ns=1, trace_id=b"t")
        if verdict.verdict == "fail":
            break
    return verdict


def test_who_fails_as_often_as_stable_itself_does_not_fail() -> None:
    chance = random.Random(71)
    words = [verdict_of(chance, 0.03, 0.03).verdict for _ in range(20)]
    assert words.count("fail") <= 1


def test_who_fails_ten_percent_more_fails_by_its_errors() -> None:
    chance = random.Random(72)
    for _ in range(5):
        found = verdict_of(chance, 0.13, 0.03, requests=2_000)
        assert found.verdict == "fail"
        assert [each.gate for each in found.gates if each.finding == "fail"] == ["errors"]
        assert " more often than the reference itself; allowed 1 % more" in found.reason


def failing(failed: int, requests: int, more: Differences) -> Evidence:
    compared = requests - failed
    return Evidence(
        failures=Shares(failed, compared), shares=Shares(0.0, compared), failed_more=more
    )


def gate_of(evidence: Evidence, settings: GateSettings = NOISY) -> Gate:
    return errors_gate(evidence, settings, Gate("errors"))


def test_without_noise_the_same_failures_are_charged() -> None:
    evidence = failing(30, 1_000, Differences(30.0, 940.0, 30.0))
    assert gate_of(evidence, replace(NOISY, has_noise=False)).finding == "fail"
    found = gate_of(evidence)
    assert found.finding == "open"
    assert found.reason == (
        "3 % of 1,000 copied requests failed, 0 % more often than the reference itself; "
        "allowed 1 % more"
    )


def test_failures_without_second_answers_beside_them_do_not_fail() -> None:
    found = gate_of(failing(500, 1_000, Differences()))
    assert (found.finding, found.log_fail) == ("open", 0.0)


@pytest.mark.parametrize(
    ("failed", "requests", "more"),
    [(0, 540, Differences()), (300, 1_000, Differences(0.0, 600.0, 100.0))],
    ids=["hardly any", "fewer than stable's own"],
)
def test_failures_within_what_is_allowed_pass_by_either_way(
    failed: int, requests: int, more: Differences
) -> None:
    assert gate_of(failing(failed, requests, more)).finding == "pass"

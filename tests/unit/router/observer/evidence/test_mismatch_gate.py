"""The gate on predictions, with noise."""

import math
import random
from dataclasses import replace

import pytest

from coalmine_router.observer.comparison.result import Comparison, OutputResult
from coalmine_router.observer.evidence.betting.mean_bets import Limit
from coalmine_router.observer.evidence.betting.windows import WindowTerms
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.gates.mismatch_gate import mismatch_gate
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import Gate
from tests.doubles.evidence import add_request, add_with_noise

NOISY = GateSettings(has_noise=True)
UNSEEN = Gate("mismatch")


def comparison(**shares: float) -> Comparison:
    """Return one of outputs by the share of their 100 rows that mismatch."""
    results = tuple(
        OutputResult(name, "mismatch" if share else "match", 100, round(100 * share))
        for name, share in shares.items()
    )
    worst = max((each.rows_mismatch for each in results), default=0)
    return Comparison("mismatch" if worst else "match", "", (), 0, results, 100, worst)


def gate_of(evidence: Evidence, settings: GateSettings = NOISY) -> Gate:
    return mismatch_gate(evidence, 0.01, settings, UNSEEN)


def test_an_output_that_always_differs_is_charged_without_noise_and_not_with_it() -> None:
    evidence = Evidence()
    for _ in range(600):
        add_with_noise(evidence, comparison(time=1.0, scores=0.0), comparison(time=1.0, scores=0.0))
    assert gate_of(evidence, replace(NOISY, has_noise=False)).finding == "fail"
    found = gate_of(evidence)
    assert found.finding == "pass"
    assert found.log_fail == 0.0
    assert found.reason == (
        "no output is over its noise; nearest: 100 % of 600 requests mismatch in time, the "
        "reference against itself in 100 % of 600; allowed 1 % more"
    )


def test_with_noise_too_what_is_not_answered_helps_no_pass() -> None:
    evidence = Evidence()
    for number in range(600):
        add_with_noise(evidence, comparison(scores=0.0), comparison(scores=0.0))
        if number % 10 == 0:
            evidence.windows.add(None, "", 1, WindowTerms(Limit(0.01)))
    found = gate_of(evidence)
    assert (found.finding, found.log_pass) == ("open", 0.0)
    assert found.reason.endswith("; 60 of 660 copies were not answered")


def test_with_noise_too_nothing_fails_before_ten_requests() -> None:
    evidence = Evidence()
    for _ in range(9):
        add_with_noise(evidence, comparison(scores=1.0), comparison(scores=0.0))
    assert (gate_of(evidence).finding, gate_of(evidence).log_fail) == ("open", 0.0)
    add_with_noise(evidence, comparison(scores=1.0), comparison(scores=0.0))
    assert gate_of(evidence).finding == "fail"


def test_many_requests_of_one_moment_are_no_more_proof_than_one() -> None:
    evidence = Evidence()
    for _ in range(1_000):
        evidence.add(comparison(scores=1.0))
        evidence.add_noise(comparison(scores=1.0), comparison(scores=0.0))
    evidence.add_moment({"scores": 1.0, "": 0.0})
    assert gate_of(evidence).finding == "open"
    for _ in range(9):
        evidence.add_moment({"scores": 1.0, "": 0.0})
    found = gate_of(evidence)
    assert found.finding == "fail"
    assert ", in 1,000 requests of 10 moments; allowed" in found.reason


def test_noise_does_not_hide_another_outputs_difference() -> None:
    evidence, chance = Evidence(), random.Random(61)
    for _ in range(400):
        bad = float(chance.random() < 0.1)
        add_with_noise(evidence, comparison(time=1.0, scores=bad), comparison(time=1.0, scores=0.0))
    found = gate_of(evidence)
    assert found.finding == "fail"
    assert found.reason.startswith("scores mismatches ")
    assert found.reason.endswith(", in 400 requests of 400 moments; allowed 1 % more")


def test_with_noise_a_candidate_passes_by_its_own_rate_too() -> None:
    evidence = Evidence()
    for number in range(520):
        if number % 100:
            evidence.add(comparison(y=0.0))
        else:
            add_with_noise(evidence, comparison(y=0.0), comparison(y=0.0))
    # Half of the stake: some 70 requests more than without noise.
    assert gate_of(evidence).finding == "open"
    for _ in range(20):
        evidence.add(comparison(y=0.0))
    assert gate_of(evidence).finding == "pass"


def test_with_noise_mismatches_without_second_answers_do_not_fail() -> None:
    evidence = Evidence()
    for _ in range(1_000):
        evidence.add(comparison(y=1.0))
    found = gate_of(evidence)
    assert (found.finding, found.log_fail, found.log_pass) == ("open", 0.0, 0.0)
    assert found.reason == (
        "100 % of 1,000 requests mismatch in y, the reference against itself in 0 % of 0; "
        "allowed 1 % more"
    )


def test_with_noise_what_is_open_is_told_of_the_output_that_a_pass_waits_for() -> None:
    evidence, chance = Evidence(), random.Random(61)
    for _ in range(1_000):
        seen, again = (float(chance.random() < 0.3) for _ in range(2))
        add_with_noise(evidence, comparison(y=seen), comparison(y=again))
    found = gate_of(evidence)
    assert found.finding == "open"
    assert " of 1,000 requests mismatch in y, the reference against itself in " in found.reason


def test_answers_that_can_not_be_read_fail_with_noise_too() -> None:
    evidence = Evidence()
    for _ in range(20):
        add_with_noise(evidence, Comparison("mismatch", "malformed"), comparison(y=0.0))
    found = gate_of(evidence)
    assert found.finding == "fail"
    assert found.reason.startswith("the answer as a whole mismatches 100 % more often")


def test_answers_that_can_not_be_read_are_named_without_noise() -> None:
    evidence = Evidence()
    for _ in range(20):
        add_request(evidence, Comparison("mismatch", "malformed"))
    found = gate_of(evidence, replace(NOISY, has_noise=False))
    assert found.reason.endswith("; its answers can't be compared with the reference's at all")


def test_a_rare_output_holds_up_no_pass() -> None:
    evidence = Evidence()
    for number in range(600):
        shares = {"y": 0.0, "rare": 0.0} if number % 100 == 0 else {"y": 0.0}
        add_with_noise(evidence, comparison(**shares), comparison(**shares))
    assert gate_of(evidence).finding == "pass"


def test_one_noisy_output_holds_up_a_pass_and_is_named() -> None:
    evidence, chance = Evidence(), random.Random(62)
    for _ in range(2_000):
        ours, theirs = (float(chance.random() < 0.3) for _ in range(2))
        add_with_noise(evidence, comparison(y=0.0, label=ours), comparison(y=0.0, label=theirs))
    found = gate_of(evidence)
    assert found.finding == "open"
    assert " in label, " in found.reason


def test_as_noisy_as_the_reference_seldom_fails() -> None:
    chance, failed = random.Random(63), 0
    for _ in range(30):
        evidence, gate = Evidence(), UNSEEN
        for _ in range(300):
            ours, theirs = (float(chance.random() < 0.2) for _ in range(2))
            add_with_noise(evidence, comparison(a=ours, b=0.0), comparison(a=theirs, b=0.0))
            gate = mismatch_gate(evidence, 0.01, NOISY, gate)
        failed += gate.finding == "fail"
    assert failed <= 2


@pytest.mark.parametrize("outputs", [1, 100])
def test_a_difference_in_one_of_many_outputs_is_found(outputs: int) -> None:
    evidence = Evidence()
    same = {f"y{each}": 0.0 for each in range(outputs)}
    for number in range(300):
        bad = float(number % 5 == 0)
        add_with_noise(evidence, comparison(**same, scores=bad), comparison(**same, scores=0.0))
    found = gate_of(evidence)
    assert found.finding == "fail"
    assert found.reason.startswith("scores mismatches 20 % more often")
    assert found.log_needed == pytest.approx(math.log(20))

"""What one look at a gate leaves for the next."""

from coalmine_router.observer.evidence.looks import Look, evaluate_gate
from coalmine_router.observer.evidence.verdict import Finding, Gate

NEEDED = 3.0
UNSEEN = Gate("mismatch")


def seen(before: Gate, *looks: Look) -> Gate:
    for look in looks:
        before = evaluate_gate(before, look, NEEDED, _reason)
    return before


def _reason(finding: Finding) -> str:
    return f"told as {finding}"


def test_evidence_for_a_pass_that_came_too_early_and_went_again_passes_nothing() -> None:
    early, now = Look(0.0, 5.0, 40), Look(0.0, 1.0, 50, may_pass=True)
    assert seen(UNSEEN, early).log_pass == 5.0, "it is shown as it is"
    found = seen(UNSEEN, early, now)
    assert (found.finding, found.log_pass) == ("open", 1.0)


def test_evidence_for_a_pass_that_is_still_there_when_it_may_passes() -> None:
    early, now = Look(0.0, 5.0, 40), Look(0.0, 3.5, 50, may_pass=True)
    assert seen(UNSEEN, early, now).finding == "pass"


def test_a_pass_stays_with_the_greatest_evidence_and_the_reason_that_it_had() -> None:
    found = seen(UNSEEN, Look(0.0, 3.5, 50, may_pass=True), Look(0.0, -2.0, 60, may_pass=True))
    assert (found.finding, found.log_pass, found.observed) == ("pass", 3.5, 60)
    assert found.reason == "told as pass"


def test_evidence_against_counts_from_the_first_look() -> None:
    found = seen(UNSEEN, Look(2.5, 0.0, 10), Look(1.0, 0.0, 20))
    assert (found.finding, found.log_fail, found.reason) == ("open", 2.5, "told as open")
    assert seen(found, Look(3.0, 0.0, 30)).finding == "fail"


def test_a_fail_after_a_pass_stands() -> None:
    found = seen(UNSEEN, Look(0.0, 4.0, 50, may_pass=True), Look(3.2, 4.0, 90, may_pass=True))
    assert (found.finding, found.reason) == ("fail", "told as fail")

"""What two statuses decide before anything is read."""

import pytest

from coalmine_router.codes import REFUSALS
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison, Element
from coalmine_router.observer.comparison.statuses import NOT_CHARGED, is_charged, status_comparison

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)


def outcome(reference: str, candidate: str) -> str:
    found = status_comparison(ComparedAnswer(code=reference), ComparedAnswer(code=candidate))
    return "compared" if found is None else found.outcome


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("OK", "OK", "compared"),
        ("OK", "INTERNAL", "error"),
        ("OK", "INVALID_ARGUMENT", "error"),
        ("OK", "UNAVAILABLE", "error"),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "skipped"),
        ("INVALID_ARGUMENT", "OK", "mismatch"),
        ("INVALID_ARGUMENT", "INTERNAL", "mismatch"),
        ("INVALID_ARGUMENT", "NOT_FOUND", "mismatch"),
        ("INVALID_ARGUMENT", "UNAVAILABLE", "skipped"),
        ("INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "skipped"),
        ("INTERNAL", "OK", "skipped"),
        ("UNAVAILABLE", "INTERNAL", "skipped"),
        ("RESOURCE_EXHAUSTED", "OK", "skipped"),
        ("CANCELLED", "OK", "skipped"),
    ],
)
def test_the_statuses_decide_by_whose_fault_it_is(
    reference: str, candidate: str, expected: str
) -> None:
    assert outcome(reference, candidate) == expected


@pytest.mark.parametrize("candidate", CODES)
@pytest.mark.parametrize("reference", CODES)
def test_a_candidate_is_blamed_only_where_the_reference_answered_or_refused(
    reference: str, candidate: str
) -> None:
    found = outcome(reference, candidate)
    assert (found == "compared") is (reference == candidate == "OK")
    assert (found == "error") is (reference == "OK" and candidate != "OK")
    if found == "mismatch":
        assert reference in REFUSALS
        assert candidate == "OK" or is_charged(ComparedAnswer(code=candidate))


def test_what_differs_is_told_with_both_messages_cut_where_they_are_long() -> None:
    reference = ComparedAnswer(code="INVALID_ARGUMENT", message="no such input")
    found = status_comparison(reference, ComparedAnswer(code="INTERNAL", message="x" * 10_000))
    assert found is not None
    assert (found.outcome, found.kind, found.share, found.rows) == ("mismatch", "status", 1.0, 0)
    (element,) = found.differences[0].worst
    assert element.expected == "INVALID_ARGUMENT: no such input"
    assert len(element.actual) == 200


def test_an_error_tells_what_was_expected() -> None:
    found = status_comparison(ComparedAnswer(), ComparedAnswer(code="UNAVAILABLE", message="gone"))
    assert found is not None
    assert found.differences[0].worst == (Element((), "OK", "UNAVAILABLE: gone"),)


def test_a_skipped_pair_says_it_is_for_a_status() -> None:
    assert status_comparison(ComparedAnswer(code="INTERNAL"), ComparedAnswer()) == Comparison(
        "skipped", "status"
    )


@pytest.mark.parametrize("code", CODES)
def test_a_failure_to_reach_or_to_wait_is_not_the_models(code: str) -> None:
    assert is_charged(ComparedAnswer(code=code)) is (code not in NOT_CHARGED)
    assert {"OK", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"} == (
        NOT_CHARGED
    )

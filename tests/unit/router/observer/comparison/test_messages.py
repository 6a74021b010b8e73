"""Messages of services that aren't inference."""

import pytest

from coalmine_router.observer.comparison.job import ComparisonJob, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison
from tests.doubles.reports import rules


def compared(reference: bytes, candidate: bytes, default: str = "close") -> Comparison:
    job = ComparisonJob(
        (ComparedAnswer(reference), ComparedAnswer(candidate)),
        ((0, 1),),
        rules(default),
        is_inference=False,
    )
    results = results_of(job)
    assert (results.versions, results.warnings) == (("", ""), ())
    return results.comparisons[0]


@pytest.mark.parametrize("body", [b"", b"\x0a\x01x", b"\xff" * 100_000])
def test_messages_of_the_same_bytes_match_whatever_they_are(body: bytes) -> None:
    found = compared(body, bytes(bytearray(body)))
    assert (found.outcome, found.rows, found.outputs[0].output) == ("match", 1, "message")


@pytest.mark.parametrize(
    ("reference", "candidate", "at", "expected", "actual"),
    [
        (b"\x01\x02\x03", b"\x01\x09\x03", 1, "02 03 (3 bytes)", "09 03 (3 bytes)"),
        (b"\x01", b"\x01\x02", 1, "the end (1 bytes)", "02 (2 bytes)"),
        (b"", b"\x07", 0, "the end (0 bytes)", "07 (1 bytes)"),
        (b"a" * 99 + b"b", b"a" * 99 + b"c", 99, "62 (100 bytes)", "63 (100 bytes)"),
    ],
)
def test_the_first_byte_that_differs_is_told(
    reference: bytes, candidate: bytes, at: int, expected: str, actual: str
) -> None:
    found = compared(reference, candidate)
    assert (found.outcome, found.kind, found.rows, found.rows_mismatch) == (
        *("mismatch", "value", 1, 1),
    )
    (element,) = found.differences[0].worst
    assert (element.index, element.expected, element.actual) == ((at,), expected, actual)


def test_they_may_be_ignored() -> None:
    assert compared(b"a", b"b", "ignore").outcome == "ignored"


def test_statuses_go_before_messages() -> None:
    job = ComparisonJob(
        (ComparedAnswer(b"a"), ComparedAnswer(code="INTERNAL")),
        ((0, 1), (1, 0)),
        rules(),
        is_inference=False,
    )
    assert [each.outcome for each in results_of(job).comparisons] == ["error", "skipped"]

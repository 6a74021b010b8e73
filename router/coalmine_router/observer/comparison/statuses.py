"""Compares the statuses of two calls, before their bodies are read. Pure."""

from typing import Final

from coalmine_router.codes import OK, REFUSALS
from coalmine_router.observer.comparison.result import (
    ComparedAnswer,
    Comparison,
    Difference,
    Element,
    Kind,
    Outcome,
)
from coalmine_router.observer.comparison.rule_result import as_text

# The model wasn't reached, or had no time: these say nothing of how it answers.
NOT_CHARGED: Final = frozenset(
    {OK, "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
)

# The other refusals say that the reference wasn't ready, and nothing of the request.
_OF_THE_REQUEST: Final = REFUSALS - {"NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION"}


def is_charged(candidate: ComparedAnswer) -> bool:
    """Return whether an answer is a failure that counts against its model."""
    return candidate.code not in NOT_CHARGED


def status_comparison(reference: ComparedAnswer, candidate: ComparedAnswer) -> Comparison | None:
    """Return what the statuses alone decide; None where both answered.

    | reference   | candidate                 |                   |
    |-------------|---------------------------|-------------------|
    | OK          | OK                        | None              |
    | OK          | failed                    | error             |
    | a status    | the same one              | skipped           |
    | refused it  | answered, or failed so    | mismatch          |
    |             | that it is charged        |                   |
    | refused it  | failed otherwise          | skipped           |
    | failed, or  | whatever                  | skipped           |
    | wasn't ready|                           |                   |

    "Refused it" is a status such as INVALID_ARGUMENT, which the request itself causes. A candidate
    that answers such a request accepts other requests than the reference does. "Wasn't ready" is a
    status such as NOT_FOUND: whoever answers while the reference is unloaded is not charged.
    """
    if reference.code == OK:
        return None if candidate.code == OK else _status_difference("error", reference, candidate)
    if reference.code == candidate.code or reference.code not in _OF_THE_REQUEST:
        return Comparison("skipped", "status")
    if candidate.code == OK or is_charged(candidate):
        return _status_difference("mismatch", reference, candidate)
    return Comparison("skipped", "status")


def whole_comparison(outcome: Outcome, kind: Kind, expected: str, actual: str) -> Comparison:
    """Return a comparison of the answers as a whole, without single outputs."""
    difference = Difference("", kind, (Element((), expected, actual),))
    return Comparison(outcome, kind, (difference,))


def _status_difference(
    outcome: Outcome, reference: ComparedAnswer, candidate: ComparedAnswer
) -> Comparison:
    return whole_comparison(outcome, "status", _status_text(reference), _status_text(candidate))


def _status_text(answer: ComparedAnswer) -> str:
    return as_text(f"{answer.code}: {answer.message}" if answer.message else answer.code)

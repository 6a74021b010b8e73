"""What two calls' statuses say, before anything is read. Pure."""

from typing import Final

from coalmine_router.codes import OK, REFUSALS
from coalmine_router.observer.comparison.measured import text
from coalmine_router.observer.comparison.result import (
    ComparedAnswer,
    Comparison,
    Difference,
    Element,
    Kind,
    Outcome,
)

# Nobody was reached, or nobody had the time: not how a model answers.
NOT_CHARGED: Final = frozenset(
    {OK, "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
)


def is_charged(candidate: ComparedAnswer) -> bool:
    """Return whether an answer is a failure that is its model's own fault."""
    return candidate.code not in NOT_CHARGED


def by_status(reference: ComparedAnswer, candidate: ComparedAnswer) -> Comparison | None:
    """Return what the statuses alone decide; None where both answered.

    | reference   | candidate                 |                   |
    |-------------|---------------------------|-------------------|
    | OK          | OK                        | None              |
    | OK          | failed                    | error             |
    | a status    | the same one              | skipped           |
    | refused it  | answered, or failed so    | mismatch          |
    |             | that it is charged        |                   |
    | refused it  | failed otherwise          | skipped           |
    | failed      | whatever                  | skipped           |

    Refused is what another model would refuse too, as INVALID_ARGUMENT: who answers it instead
    takes other requests than the reference does.
    """
    if reference.code == OK:
        return None if candidate.code == OK else _of("error", reference, candidate)
    if reference.code == candidate.code or reference.code not in REFUSALS:
        return Comparison("skipped", "status")
    if candidate.code == OK or is_charged(candidate):
        return _of("mismatch", reference, candidate)
    return Comparison("skipped", "status")


def whole(outcome: Outcome, kind: Kind, expected: str, actual: str) -> Comparison:
    """Return a comparison that never came to single outputs."""
    difference = Difference("", kind, (Element((), expected, actual),))
    return Comparison(outcome, kind, (difference,))


def _of(outcome: Outcome, reference: ComparedAnswer, candidate: ComparedAnswer) -> Comparison:
    return whole(outcome, "status", _told(reference), _told(candidate))


def _told(answer: ComparedAnswer) -> str:
    told = f"{answer.code}: {answer.message}" if answer.message else answer.code
    return text(told)

"""What a report says of the split: which side a request was assigned to, and how it went. Pure."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import SERVICE
from coalmine_router.blame import is_models_error
from coalmine_router.observer.codes import code_name
from coalmine_router.table import STABLE

# Their callers decide how long they last.
_STREAM: Final = f"{SERVICE}/ModelStreamInfer"


class SplitEvent(NamedTuple):
    """One request that the split assigned to the candidate, or to stable beside it.

    `weights_bp`: of the candidate and of stable, when it was assigned. `is_stream`: it lasts as
    long as its caller likes.
    """

    candidate: str
    weights_bp: tuple[int, int]
    is_candidate: bool
    is_error: bool
    is_slow: bool
    is_stream: bool = False


def split_events(report: pb.Report, slow_over_ns: int | None) -> Iterator[SplitEvent]:
    """Return an event for each candidate that a request of the split says something of.

    Nothing of requests that were pinned or went by a sticky key: those are not assigned by chance.
    Of a request that fell back, who was assigned is charged. A call that was tried again counts by
    how it first ended, stable's as the candidate's: else stable's second chances would be held
    against the candidate.
    """
    assigned = report.chosen or report.variant
    split = report.split_bp
    if not assigned or STABLE not in split or not is_by_split(report):
        return
    others = [name for name in split if name != STABLE]
    is_error = is_models_error(_first_code(report))
    is_slow = slow_over_ns is not None and _first_took_ns(report) > slow_over_ns
    for name in others if assigned == STABLE else [assigned]:
        if name in split:
            weights = split[name], split[STABLE]
            own, is_stream = assigned != STABLE, report.method == _STREAM
            yield SplitEvent(name, weights, own, is_error, is_slow, is_stream)


def is_by_split(report: pb.Report) -> bool:
    """Return whether chance alone, by the weights, assigned the request."""
    why = report.chosen_by if report.chosen else report.assignment
    return why == pb.ASSIGNMENT_SPLIT


def _first_code(report: pb.Report) -> str:
    if report.attempts and _is_of_assigned(report):
        return code_name(report.attempts[0].status_code)
    # Nobody could be called: not ready, in the place of who was assigned.
    return "UNAVAILABLE" if report.chosen else code_name(report.status_code)


def _first_took_ns(report: pb.Report) -> int:
    if report.method == _STREAM or not report.attempts or not _is_of_assigned(report):
        return 0
    return report.attempts[0].duration_ns


def _is_of_assigned(report: pb.Report) -> bool:
    return report.attempts[0].variant == (report.chosen or report.variant)

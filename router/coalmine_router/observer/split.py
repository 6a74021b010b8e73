"""What a report says of the split: which side a request was assigned to, and how it went. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_STREAM_INFER
from coalmine_router.codes import code_name, is_charged_to_model, is_refusal
from coalmine_router.table import STABLE


class SplitEvent(NamedTuple):
    """One request that the split assigned to the candidate, or to stable beside it.

    `weights_bp`: of the candidate and of stable, when it was assigned. `is_error`: the call ended
    with an error of the model's, or took longer than a call that stable stands in for may take.
    `is_refusal`: the backend refused it; whoever sends wrong requests sends them to both sides.
    `is_stream`: it lasts as long as its caller likes.
    """

    candidate: str
    weights_bp: tuple[int, int]
    is_candidate: bool
    is_error: bool
    is_slow: bool
    is_stream: bool = False
    is_refusal: bool = False

    @property
    def expected(self) -> float:
        """The candidate's share of the split, beside stable's alone."""
        own, other = self.weights_bp
        return own / max(own + other, 1)


def split_events(report: pb.Report, slow_over_ns: int | None) -> Iterator[SplitEvent]:
    """Return an event for each candidate that a request of the split says something of.

    Nothing of requests that were pinned or went by a sticky key: those are not assigned by chance.
    Of a request that fell back, who was assigned is charged. A call that was tried again counts by
    how it first ended, stable's as the candidate's: else stable's second chances would be held
    against the candidate. Who could not be called at all is assigned the request and charged with
    nothing: stable is called also where it is not ready, so only candidates would be.
    """
    assigned = report.chosen or report.variant
    split = report.split_bp
    if not assigned or STABLE not in split or not is_by_split(report):
        return
    others = [name for name in split if name != STABLE]
    call = _first_call(report, assigned)
    is_error = call is not None and _is_error(report, call)
    is_slow = call is not None and _is_slow(report, call, slow_over_ns)
    is_refused = call is not None and not is_error and is_refusal(code_name(call.status_code))
    for name in others if assigned == STABLE else [assigned]:
        if name in split:
            weights = split[name], split[STABLE]
            own, is_stream = assigned != STABLE, report.method == MODEL_STREAM_INFER
            yield SplitEvent(name, weights, own, is_error, is_slow, is_stream, is_refused)


def is_by_split(report: pb.Report) -> bool:
    """Return whether chance alone, by the weights, assigned the request."""
    why = report.chosen_by if report.chosen else report.assignment
    return why == pb.ASSIGNMENT_SPLIT


def _first_call(report: pb.Report, assigned: str) -> pb.Attempt | None:
    """Return the first call; None where who was assigned could not be called."""
    calls = report.attempts
    return calls[0] if calls and calls[0].variant == assigned else None


def _is_error(report: pb.Report, call: pb.Attempt) -> bool:
    """Return whether a first call counts as an error of the variant that it went to.

    Where stable stands in, a candidate has half of the time, or all of it once the budget of second
    calls is spent; stable always has all. Held to the half, all are alike.
    """
    is_late = 0 < report.timeout_ns < 2 * _took_ns(report, call)
    code = code_name(call.status_code)
    return is_late or (is_charged_to_model(code) and not is_refusal(code))


def _is_slow(report: pb.Report, call: pb.Attempt, over_ns: int | None) -> bool:
    return over_ns is not None and _took_ns(report, call) > over_ns


def _took_ns(report: pb.Report, call: pb.Attempt) -> int:
    return 0 if report.method == MODEL_STREAM_INFER else call.duration_ns

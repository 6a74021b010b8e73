"""Why a copy that was drawn is not made. Pure."""

from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router import wire
from coalmine_router.codes import OK, REFUSALS, code_name
from coalmine_router.table import Route

# Triton's, of a request that is one of a sequence; 0 and "" are none.
# Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_sequence.md
_SEQUENCE: Final = "sequence_id"
_NO_SEQUENCE: Final = (None, "0")


def refusal(report: pb.Report, request: bytes, route: Route) -> str:
    """Return why a request is not copied; empty: it may be.

    What the proxy said itself; `stateful`: answering twice changes what is answered later;
    `not_comparable`: a method that nobody allowed; `primary_failed`: there is nothing to compare
    with; `unreadable`: it can't be known whether it is one of a sequence.
    """
    if report.uncopied:
        return report.uncopied
    if route.stateful:
        return "stateful"
    if not route.may_copy(report.method):
        return "not_comparable"
    if not _is_comparable(report):
        return "primary_failed"
    return "" if route.match.service else _sequence(request)


def _is_comparable(report: pb.Report) -> bool:
    """Return whether a candidate that is well answers as the primary did, error or not."""
    code = code_name(report.status_code)
    return code == OK or (code in REFUSALS and not report.origin_router)


def _sequence(request: bytes) -> str:
    try:
        return "" if wire.parameter(request, _SEQUENCE) in _NO_SEQUENCE else "stateful"
    except InvalidRequest:
        return "unreadable"

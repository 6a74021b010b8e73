"""What a report adds to the traffic: who answered, who is charged, what fell back. Pure."""

from collections.abc import Iterator
from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.codes import code_name
from coalmine_router.observer.split import is_by_split
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.table import Route, RouteTable

NOT_READY: Final = "not_ready"


def count(report: pb.Report, table: RouteTable, traffic: TrafficCounts) -> None:
    """Count a report.

    Its request is an answer of `variant`, whatever its status. Calls before the one that answered
    are failures of the variants they went to. With `chosen` set it fell back: by reason `not_ready`
    where no call went to `chosen`, else by how the first one ended. It counts as assigned by split
    where `chosen` was: so the shares of the split are what was drawn, whoever could answer.
    """
    route = table.by_route.get(report.route)
    if report.turned_away:
        traffic.count_refusal(route.name if route else "", report.turned_away)
    traffic.count_answer(
        *_names_of(route, report.variant),
        code=code_name(report.status_code),
        duration_ns=_took_ns(report),
    )
    for attempt in _failed_attempts(report):
        traffic.count_failure(
            *_names_of(route, attempt.variant), code=code_name(attempt.status_code)
        )
    if report.chosen:
        traffic.count_fallback(*_names_of(route, report.chosen), reason=_fallback_reason(report))
    assigned = report.chosen or report.variant
    if assigned and is_by_split(report):
        traffic.count_assignment(*_names_of(route, assigned))


def _took_ns(report: pb.Report) -> int:
    """Return how long who answered has taken: not what was spent on a call that failed before."""
    if len(report.attempts) > 1:
        return report.attempts[-1].duration_ns
    return report.duration_ns


def _names_of(route: Route | None, variant: str) -> tuple[str, str]:
    """Return the names to count under; those of a route without the variant where there is none.

    Names that the table doesn't have would let whoever sends them grow the counts.
    """
    if route is None or (variant and variant not in route.by_name):
        return "", ""
    return route.name, variant


def _failed_attempts(report: pb.Report) -> Iterator[pb.Attempt]:
    """Return the calls that failed and did not decide what the caller was answered."""
    last = len(report.attempts) - 1
    return (
        attempt
        for place, attempt in enumerate(report.attempts)
        if attempt.status_code and (place < last or attempt.variant == report.chosen)
    )


def _fallback_reason(report: pb.Report) -> str:
    own = (attempt for attempt in report.attempts if attempt.variant == report.chosen)
    first = next(own, None)
    return code_name(first.status_code) if first else NOT_READY

"""A mismatch as a message: what is kept as an example. Pure."""

from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.compare import Difference
from coalmine_router.observer.exchange import Compared, Exchange, ShadowCall

BODY_BYTES_MAX: Final = 256 * 1024


def mismatch_record(
    record_id: str, exchange: Exchange, call: ShadowCall, compared: Compared
) -> pb.Mismatch:
    """Return the record, with all three bodies, or with none if one is over 256 KiB."""
    bodies = (exchange.request, exchange.response, call.answer.body)
    dropped = any(len(body) > BODY_BYTES_MAX for body in bodies)
    request, reference, candidate = (b"", b"", b"") if dropped else bodies
    return pb.Mismatch(
        id=record_id,
        at_ns=compared.started_ns,
        route=exchange.report.route,
        reference=exchange.report.variant,
        candidate=call.variant,
        trace_id=exchange.report.trace_id,
        differences=[difference_message(each) for each in compared.comparison.differences],
        request=request,
        reference_response=reference,
        candidate_response=candidate,
        bodies_dropped=dropped,
    )


def difference_message(difference: Difference) -> pb.Difference:
    """Return how one output differs, with its worst element."""
    worst = difference.worst[0]
    return pb.Difference(
        output=difference.output,
        kind=difference.kind,
        index=worst.index,
        expected=worst.expected,
        actual=worst.actual,
        max_abs_diff=difference.max_abs_diff,
        differing=difference.differing,
        elements=difference.elements,
    )

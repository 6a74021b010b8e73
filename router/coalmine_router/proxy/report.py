"""The report of a request that has ended, in the words of control.proto. Pure.

Written when a batch is sent, not when the request ends: many at a time cost a fraction of as many
one by one.
"""

from typing import Final

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.proxy.exchange import Assigned, Copied, Ended

_NUMBER: Final = {code: code.value[0] for code in grpc.StatusCode}


def write_report(report: pb.Report, method: str, ended: Ended) -> None:
    """Fill the empty `report` with what is known of a request to `method`."""
    trace = ended.trace
    report.trace_id = trace.trace_id
    report.span_id = trace.span_id
    if trace.parent is not None:
        report.parent_span_id = trace.parent.span_id
    report.sampled = trace.sampled
    report.tracestate = trace.tracestate
    report.method = method
    report.started_ns = ended.began.wall_ns
    report.duration_ns = ended.ended_ns - ended.began.counter_ns
    report.status_code = _NUMBER[ended.code]
    report.status_message = ended.message
    report.origin_router = ended.here
    report.request_bytes = ended.request_bytes
    report.response_bytes = ended.response_bytes
    if ended.assigned is not None:
        _write_assignment(report, ended.assigned)
        _write_attempt(report.attempts.add(), ended, ended.assigned)
    report.uncopied = ended.uncopied
    if ended.copied is not None:
        _write_copy(report, ended.copied)


def _write_assignment(report: pb.Report, assigned: Assigned) -> None:
    variant = assigned.variant.variant
    report.route = assigned.route
    report.model = assigned.model
    report.revision = assigned.revision
    report.variant = variant.name
    report.assignment = assigned.reason
    report.weight_bp = variant.weight_bp
    report.shadows.extend(assigned.shadows)


def _write_attempt(attempt: pb.Attempt, ended: Ended, assigned: Assigned) -> None:
    attempt.span_id = ended.trace.call_span_id
    attempt.variant = assigned.variant.variant.name
    attempt.backend = assigned.variant.backend
    attempt.address = assigned.target.address
    attempt.started_ns = ended.began.wall_ns + ended.call_began_ns - ended.began.counter_ns
    attempt.duration_ns = ended.ended_ns - ended.call_began_ns
    attempt.status_code = _NUMBER[ended.code]
    attempt.status_message = ended.message


def _write_copy(report: pb.Report, copied: Copied) -> None:
    report.request_body = copied.request
    report.response_body = copied.response
    for key, value in copied.metadata:
        report.metadata.add(key=key, value=value.encode() if isinstance(value, str) else value)

"""One request on its way through the proxy, and the report that is made of it."""

import random
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

import grpc

from coalmine import trace_context
from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.proxy.backends import BoundVariant, Target
from coalmine_router.proxy.caller import Caller, Pair
from coalmine_router.proxy.forward import Outcome

# Bodies of a request and its answer are copied for shadows up to this size, together.
COPY_BYTES_MAX: Final = 16 * 1024 * 1024

_NUMBER: Final = {code: code.value[0] for code in grpc.StatusCode}
_MESSAGE_CHARS_MAX: Final = 2_048


class Trace(NamedTuple):
    """The ids of a request's spans: the router's own, and the one of its call to the backend."""

    trace_id: bytes
    span_id: bytes
    call_span_id: bytes
    sampled: bool

    def traceparent(self) -> Pair:
        """Return the metadata that makes the backend's span a child of the call's."""
        header = trace_context.header(self.trace_id, self.call_span_id, sampled=self.sampled)
        return trace_context.TRACEPARENT, header


def begin_trace(parent: Parent | None, sampler: HeadSampler, rng: random.Random) -> Trace:
    """Return new span ids, in the caller's trace where there is one, and take the head decision."""
    bits = rng.getrandbits(256).to_bytes(32, "big")
    trace_id = parent.trace_id if parent else bits[16:]
    return Trace(trace_id, bits[:8], bits[8:16], sampler.sampled(trace_id, parent))


class Began(NamedTuple):
    """A moment, by both clocks."""

    wall_ns: int
    counter_ns: int

    @classmethod
    def now(cls) -> "Began":
        """Return this moment."""
        return cls(time.time_ns(), time.perf_counter_ns())


class Assigned(NamedTuple):
    """What a request was given: a route, a variant with its address, and why."""

    route: str
    model: str
    revision: int
    variant: BoundVariant
    target: Target
    reason: pb.Assignment.ValueType
    shadows: list[str]
    timeout_s: float


@dataclass(slots=True)
class Exchange:
    """The facts of one request, as far as it got."""

    request: bytes
    caller: Caller
    trace: Trace
    began: Began
    assigned: Assigned | None = None
    call_began_ns: int = 0

    def report(self, method: str, outcome: Outcome) -> pb.Report:
        """Return the report of the request, which ends now with `outcome`."""
        ended = time.perf_counter_ns()
        report = pb.Report(
            trace_id=self.trace.trace_id,
            span_id=self.trace.span_id,
            parent_span_id=self.caller.parent.span_id if self.caller.parent else b"",
            sampled=self.trace.sampled,
            tracestate=self.caller.tracestate,
            method=method,
            started_ns=self.began.wall_ns,
            duration_ns=ended - self.began.counter_ns,
            status_code=_NUMBER[outcome.code],
            status_message=outcome.message[:_MESSAGE_CHARS_MAX],
            origin_router=outcome.here,
            request_bytes=len(self.request),
            response_bytes=len(outcome.response),
        )
        if self.assigned is not None:
            self._tell_call(report, self.assigned, outcome, ended)
        return report

    def _tell_call(
        self, report: pb.Report, assigned: Assigned, outcome: Outcome, ended_ns: int
    ) -> None:
        variant = assigned.variant.variant
        report.route = assigned.route
        report.model = assigned.model
        report.revision = assigned.revision
        report.variant = variant.name
        report.assignment = assigned.reason
        report.weight_bp = variant.weight_bp
        report.attempts.add(
            span_id=self.trace.call_span_id,
            variant=variant.name,
            backend=assigned.variant.backend,
            address=assigned.target.address,
            started_ns=self.began.wall_ns + self.call_began_ns - self.began.counter_ns,
            duration_ns=ended_ns - self.call_began_ns,
            status_code=report.status_code,
            status_message=report.status_message,
        )
        if assigned.shadows:
            self._copy(report, assigned.shadows, outcome)

    def _copy(self, report: pb.Report, shadows: list[str], outcome: Outcome) -> None:
        report.shadows.extend(shadows)
        if not outcome.is_ok:
            report.uncopied = "primary_failed"
        elif len(self.request) + len(outcome.response) > COPY_BYTES_MAX:
            report.uncopied = "too_large"
        else:
            report.request_body = self.request
            report.response_body = outcome.response
            report.metadata.extend(
                pb.Metadata(key=key, value=value.encode() if isinstance(value, str) else value)
                for key, value in self.caller.metadata
            )

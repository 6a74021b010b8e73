"""A finished exchange as spans: the tree that one request left in the router.

Made after the fact from the ids and times of the report, so that the decision to keep them could
wait for the outcome. Hence every span here says that it is sampled.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer import span_values as values
from coalmine_router.observer.codes import OK, code_name
from coalmine_router.observer.compare import Comparison
from coalmine_router.observer.exchange import Compared, Exchange, ShadowCall

EVENTS_MAX: Final = 32

_SCOPE: Final = InstrumentationScope("coalmine.observer")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class _Took(NamedTuple):
    """What every span has: its id and its time."""

    span_id: bytes
    started_ns: int
    duration_ns: int

    @property
    def ended_ns(self) -> int:
        return self.started_ns + self.duration_ns


def tree(exchange: Exchange, resource: Resource) -> list[ReadableSpan]:
    """Return the router's spans of one request, the SERVER span first."""
    trace = _Trace(exchange.report, resource)
    spans = [trace.server(exchange.request_id())]
    spans += [trace.primary(attempt) for attempt in exchange.report.attempts]
    for call, compared in exchange.shadowed:
        spans += [trace.shadow(call), trace.comparison(call.variant, compared)]
    return spans


class _Trace:
    def __init__(self, report: pb.Report, resource: Resource) -> None:
        self._report = report
        self._resource = resource
        self._trace_id = int.from_bytes(report.trace_id, "big")
        self._state = TraceState.from_header([report.tracestate]) if report.tracestate else None

    def server(self, request_id: str) -> ReadableSpan:
        report = self._report
        code = code_name(report.status_code)
        return self._span(
            report.method,
            SpanKind.SERVER,
            _Took(report.span_id, report.started_ns, report.duration_ns),
            {**values.rpc(report.method, code), **values.assignment(report, request_id)},
            parent=report.parent_span_id,
            status=_status(code, report.status_message),
        )

    def primary(self, attempt: pb.Attempt) -> ReadableSpan:
        return self._call(
            _Took(attempt.span_id, attempt.started_ns, attempt.duration_ns),
            values.peer("primary", attempt.variant, attempt.backend, attempt.address),
            code_name(attempt.status_code),
            attempt.status_message,
        )

    def shadow(self, call: ShadowCall) -> ReadableSpan:
        return self._call(
            _Took(call.span_id, call.started_ns, call.duration_ns),
            values.peer("shadow", call.variant, call.backend, call.address),
            call.answer.code,
            call.answer.message,
        )

    def comparison(self, candidate: str, compared: Compared) -> ReadableSpan:
        took = _Took(compared.span_id, compared.started_ns, compared.duration_ns)
        return self._span(
            t.COMPARE_SPAN,
            SpanKind.INTERNAL,
            took,
            values.comparison(self._report.variant, candidate, compared.comparison),
            parent=self._report.span_id,
            events=_events(compared.comparison, took.ended_ns),
        )

    def _call(
        self, took: _Took, peer: Mapping[str, values.Value], code: str, message: str
    ) -> ReadableSpan:
        return self._span(
            self._report.method,
            SpanKind.CLIENT,
            took,
            {**values.rpc(self._report.method, code), **peer},
            parent=self._report.span_id,
            status=_status(code, message),
        )

    def _span(
        self,
        name: str,
        kind: SpanKind,
        took: _Took,
        attributes: Mapping[str, values.Value],
        *,
        parent: bytes,
        status: Status | None = None,
        events: Sequence[Event] = (),
    ) -> ReadableSpan:
        return ReadableSpan(
            name=values.capped_text(name),
            kind=kind,
            context=self._context(took.span_id),
            parent=self._context(parent, is_remote=kind is SpanKind.SERVER) if parent else None,
            resource=self._resource,
            attributes=values.capped(attributes),
            events=events,
            status=status or Status(StatusCode.UNSET),
            start_time=took.started_ns,
            end_time=took.ended_ns,
            instrumentation_scope=_SCOPE,
        )

    def _context(self, span_id: bytes, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(
            self._trace_id, int.from_bytes(span_id, "big"), is_remote, _SAMPLED, self._state
        )


def _status(code: str, message: str) -> Status:
    if code == OK:
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, values.capped_text(message or code))


def _events(comparison: Comparison, at_ns: int) -> list[Event]:
    return [
        Event(t.DIFFERENCE_EVENT, values.capped(values.difference(each)), at_ns)
        for each in comparison.differences[:EVENTS_MAX]
    ]

"""A finished request as spans: the tree that it left in the router.

The spans are built afterwards from the report's ids and times, so that the decision to keep them
can wait for the outcome. So every span here is marked as sampled.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine.spans.span_names import call_name, compare_name, span_name
from coalmine.spans.span_text import span_text
from coalmine.trace_context import is_tracestate
from coalmine_router.codes import OK, code_name
from coalmine_router.observer.comparison.result import Comparison
from coalmine_router.observer.observed_request import (
    CopyCall,
    ObservedRequest,
    PairResult,
    copies_of,
)
from coalmine_router.observer.output import compare_values
from coalmine_router.observer.output import span_values as values

EVENTS_MAX: Final = 32

SCOPE: Final = InstrumentationScope("coalmine.observer")
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

_NOTHING: Final[Mapping[bytes, str]] = MappingProxyType({})


class _IdAndTime(NamedTuple):
    """A span's id and time."""

    span_id: bytes
    started_ns: int
    duration_ns: int

    @property
    def ended_ns(self) -> int:
        # Jaeger warns of a span without duration.
        return self.started_ns + max(self.duration_ns, 1)


def request_spans(
    observed: ObservedRequest,
    resource: Resource,
    *,
    segment: str | None = None,
    verdicts: Mapping[bytes, str] = _NOTHING,
    has_messages: bool = True,
) -> list[ReadableSpan]:
    """Return the router's spans of one request, the SERVER span first.

    `segment` is None where the route has none. `verdicts` are those that this request changed, by
    the id of the span that a verdict's own span links to. Without `has_messages` the texts of
    errors are left out: a backend may quote the request.
    """
    trace = _Trace(observed, resource, segment or "", verdicts, has_messages=has_messages)
    spans = [trace.server_span()]
    spans += [trace.attempt_span(place) for place in range(len(observed.report.attempts))]
    spans += [trace.copy_span(call) for call in observed.calls]
    spans += [trace.comparison_span(result) for result in observed.results]
    return spans


class _Trace:
    def __init__(
        self,
        observed: ObservedRequest,
        resource: Resource,
        segment: str,
        verdicts: Mapping[bytes, str],
        *,
        has_messages: bool,
    ) -> None:
        self._has_messages = has_messages
        self._observed = observed
        self._report = observed.report
        self._resource = resource
        # Searches find the request's span and those of its comparisons by it.
        self._segment = values.non_empty(
            {t.SEGMENT: segment if _has_metadata(self._report) else ""}
        )
        self._verdicts = verdicts
        self._trace_id = int.from_bytes(self._report.trace_id, "big")
        state = self._report.tracestate
        self._state = TraceState.from_header([state]) if is_tracestate(state) else None

    def server_span(self) -> ReadableSpan:
        report = self._report
        code = code_name(report.status_code)
        return self._span(
            span_name(report.method),
            SpanKind.SERVER,
            _IdAndTime(report.span_id, report.started_ns, report.duration_ns),
            {
                **values.rpc_values(report.method, code),
                t.DURATION_MS: report.duration_ns / 1e6,
                **values.assignment_values(report, self._observed.request_id()),
                **self._segment,
                **values.candidate_values(self._observed.results),
            },
            parent=report.parent_span_id,
            status=self._status(code, report.status_message),
        )

    def attempt_span(self, place: int) -> ReadableSpan:
        attempt = self._report.attempts[place]
        return self._call_span(
            _attempt_name(self._report, place),
            _IdAndTime(attempt.span_id, attempt.started_ns, attempt.duration_ns),
            values.peer_values("primary", attempt.variant, attempt.backend, attempt.address),
            code_name(attempt.status_code),
            attempt.status_message,
        )

    def copy_span(self, call: CopyCall) -> ReadableSpan:
        return self._call_span(
            call_name(call.copy.role, call.copy.variant),
            _IdAndTime(call.span_id, call.started_ns, call.duration_ns),
            values.peer_values(call.copy.role, call.copy.variant, call.backend, call.address),
            call.answer.code,
            call.answer.message,
        )

    def comparison_span(self, found: PairResult) -> ReadableSpan:
        took = _IdAndTime(found.span_id, found.started_ns, found.duration_ns)
        route = values.non_empty({t.ROUTE: self._report.route})
        return self._span(
            compare_name(found.candidate, found.comparison.outcome),
            SpanKind.INTERNAL,
            took,
            {**route, **self._segment, **compare_values.comparison_values(found)},
            parent=self._report.span_id,
            status=_compare_status(found.comparison),
            events=_difference_events(found.comparison, took.ended_ns),
        )

    def _call_span(
        self,
        name: str,
        took: _IdAndTime,
        peer: Mapping[str, values.Value],
        code: str,
        message: str,
    ) -> ReadableSpan:
        return self._span(
            name,
            SpanKind.CLIENT,
            took,
            {**values.rpc_values(self._report.method, code), **peer},
            parent=self._report.span_id,
            status=self._status(code, message),
        )

    def _status(self, code: str, message: str) -> Status:
        if code == OK:
            return Status(StatusCode.UNSET)
        shown = message if self._has_messages else ""
        return Status(StatusCode.ERROR, span_text(shown or code))

    def _span(
        self,
        name: str,
        kind: SpanKind,
        took: _IdAndTime,
        attributes: Mapping[str, values.Value],
        *,
        parent: bytes,
        status: Status,
        events: Sequence[Event] = (),
    ) -> ReadableSpan:
        verdict = values.non_empty({t.TIPPED: self._verdicts.get(took.span_id)})
        return ReadableSpan(
            name=span_text(name),
            kind=kind,
            context=self._context(took.span_id),
            parent=self._context(parent, is_remote=kind is SpanKind.SERVER) if parent else None,
            resource=self._resource,
            attributes=values.capped_values({**attributes, **verdict}),
            events=events,
            status=status,
            start_time=took.started_ns,
            end_time=took.ended_ns,
            instrumentation_scope=SCOPE,
        )

    def _context(self, span_id: bytes, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(
            self._trace_id, int.from_bytes(span_id, "big"), is_remote, SAMPLED, self._state
        )


def _attempt_name(report: pb.Report, place: int) -> str:
    """Return the name of a call; no two calls of a request have the same name."""
    variant = report.attempts[place].variant
    if place and variant == report.attempts[place - 1].variant:
        return call_name("retry", variant)
    is_instead = report.chosen and variant != report.chosen
    return call_name("fallback" if is_instead else "primary", variant)


def _has_metadata(report: pb.Report) -> bool:
    """Return whether the report has the request's metadata, which comes with the bodies."""
    return any(copies_of(report)) and not report.uncopied


def _compare_status(found: Comparison) -> Status:
    """Return an error only where comparing itself failed.

    A mismatch is no error of the request. A candidate's error is on the span of the call to it.
    """
    if found.kind == "rule":
        return Status(StatusCode.ERROR, "a rule failed")
    return Status(StatusCode.UNSET)


def _difference_events(comparison: Comparison, at_ns: int) -> list[Event]:
    return [
        Event(
            t.DIFFERENCE_EVENT, values.capped_values(compare_values.difference_values(each)), at_ns
        )
        for each in comparison.differences[:EVENTS_MAX]
    ]

"""Spans of the requests, made when they are over: a request that nobody traces costs nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from coalmine import telemetry
from coalmine.inference import MODEL_INFER
from coalmine.trace_context import TRACEPARENT, TRACESTATE, parse

QUEUE: Final = "queue"
COMPUTE: Final = "compute"
EXECUTE: Final = "execute"

_TEXT_MAX: Final = 2048  # names and ids are the caller's, and may be long

# The codes that are the server's failure, not the caller's: semantic conventions for RPC servers.
_SERVER_FAILURES: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class Exchange:
    """One call of ModelInfer, as its spans tell it; nanoseconds since the epoch, 0: never came."""

    begun_ns: int
    ended_ns: int = 0
    model: str = ""
    version: str = ""
    request_id: str = ""
    batch_rows: int = 0
    code: str = "OK"
    message: str = ""
    queued_ns: int = 0
    started_ns: int = 0
    computed_ns: int = 0


class Recorder(Protocol):
    """Where exchanges go when they are over."""

    @property
    def is_on(self) -> bool:
        """Whether anybody reads spans; if not, nobody need collect what they say."""
        ...

    def record(self, exchange: Exchange, metadata: Metadata) -> None:
        """Take one."""
        ...


class NoSpans:
    """Nobody reads spans."""

    is_on: Final = False

    def record(self, exchange: Exchange, metadata: Metadata) -> None:
        """Do nothing."""


class Spans:
    """Turns exchanges into spans that continue the caller's trace.

    The sampler is the one of OTEL_TRACES_SAMPLER, parent-based unless that says otherwise.
    """

    is_on: Final = True

    def __init__(self, resource: Resource, processor: SpanProcessor) -> None:
        provider = TracerProvider(
            resource=resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attribute_length=_TEXT_MAX),
        )
        provider.add_span_processor(processor)
        self._tracer: Tracer = provider.get_tracer("coalmine_server")

    def record(self, exchange: Exchange, metadata: Metadata) -> None:
        """Make the SERVER span, its events and its children, if the trace is sampled."""
        span = self._tracer.start_span(
            MODEL_INFER,
            context=_caller(metadata),
            kind=SpanKind.SERVER,
            attributes=_attributes(exchange),
            start_time=exchange.begun_ns,
        )
        if span.is_recording():
            self._tell(span, exchange)
        span.end(exchange.ended_ns)

    def _tell(self, span: Span, exchange: Exchange) -> None:
        if exchange.code in _SERVER_FAILURES:
            span.set_status(Status(StatusCode.ERROR, exchange.message[:_TEXT_MAX]))
        if exchange.queued_ns:
            span.add_event(QUEUE, timestamp=exchange.queued_ns)
            waited_until_ns = exchange.started_ns or exchange.ended_ns
            self._child(span, QUEUE, exchange.queued_ns, waited_until_ns)
        if exchange.started_ns:
            span.add_event(COMPUTE, timestamp=exchange.started_ns)
            computed_ns = exchange.computed_ns or exchange.ended_ns
            self._child(span, EXECUTE, exchange.started_ns, computed_ns)

    def _child(self, parent: Span, name: str, begun_ns: int, ended_ns: int) -> None:
        child = self._tracer.start_span(
            name,
            context=set_span_in_context(parent, Context()),
            kind=SpanKind.INTERNAL,
            start_time=begun_ns,
        )
        child.end(ended_ns)


def _attributes(exchange: Exchange) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        telemetry.RPC_SYSTEM: "grpc",
        telemetry.RPC_METHOD: MODEL_INFER,
        telemetry.RPC_STATUS: exchange.code,
        telemetry.MODEL: exchange.model,
        telemetry.MODEL_VERSION: exchange.version,
        telemetry.REQUEST_ID: exchange.request_id,
        telemetry.BATCH_SIZE: exchange.batch_rows,
    }
    return {name: value for name, value in attributes.items() if value not in ("", 0)}


def _caller(metadata: Metadata) -> Context:
    """Return the caller's span as a parent; an empty context, thus a new trace, without one."""
    headers = {key: value for key, value in metadata if key in (TRACEPARENT, TRACESTATE)}
    parent = parse(str(headers.get(TRACEPARENT, "")))
    if parent is None:
        return set_span_in_context(NonRecordingSpan(INVALID_SPAN_CONTEXT), Context())
    context = SpanContext(
        trace_id=int.from_bytes(parent.trace_id, "big"),
        span_id=int.from_bytes(parent.span_id, "big"),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([str(headers.get(TRACESTATE, ""))]),
    )
    return set_span_in_context(NonRecordingSpan(context), Context())

"""Spans of requests, made when a request is over: one that isn't traced costs nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from coalmine import telemetry
from coalmine.inference import MODEL_INFER
from coalmine.spans.span_text import span_text
from coalmine.trace_context import (
    TRACEPARENT,
    TRACESTATE,
    HeadSampler,
    Parent,
    is_tracestate,
    parse,
)

QUEUE: Final = "queue"
COMPUTE: Final = "compute"
EXECUTE: Final = "execute"
LINKS_MAX: Final = 16  # each costs 3 µs to export

_SCOPE: Final = InstrumentationScope("coalmine_server")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)

# The codes that are the server's failure, not the caller's: semantic conventions for RPC servers.
_SERVER_FAILURES: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

Metadata = Iterable[tuple[str, str | bytes]]
Attributes = dict[str, str | int]


@dataclass(frozen=True, slots=True, eq=False)
class TracedRequest:
    """A request whose spans are kept: a link to its SERVER span to be, and the caller's span."""

    link: Link
    parent: SpanContext | None

    @property
    def context(self) -> SpanContext:
        """The SERVER span's own."""
        return self.link.context

    def log_ids(self) -> dict[str, str]:
        """Return what a log line says of it."""
        return {
            "trace_id": f"{self.context.trace_id:032x}",
            "span_id": f"{self.context.span_id:016x}",
        }


@dataclass(slots=True)
class RequestRecord:
    """What the spans of one request show, whether it came alone or in a stream.

    Times are nanoseconds since the epoch; 0: that never happened.
    `batch` are the traced requests of its batch, itself among them.
    """

    traced: TracedRequest
    begun_ns: int
    method: str = MODEL_INFER
    ended_ns: int = 0
    model: str = ""
    version: str = ""
    request_id: str = ""
    code: str = "OK"
    message: str = ""
    queued_ns: int = 0
    batch_rows: int = 0
    batch: Sequence[TracedRequest] = ()
    started_ns: int = 0
    computed_ns: int = 0


class RequestRecorder(Protocol):
    """Where the records of requests go."""

    @property
    def is_on(self) -> bool:
        """Whether spans are exported. If not, calls need not begin any."""
        ...

    def begin(self, metadata: Metadata) -> TracedRequest | None:
        """Return the ids of a call's SERVER span; None where its trace isn't kept."""
        ...

    def record(self, request: RequestRecord) -> None:
        """Make the spans of a request that is over."""
        ...


class NoSpanRecorder:
    """Records nothing: spans are not exported."""

    is_on: Final = False

    def begin(self, metadata: Metadata) -> None:
        """Trace nothing."""

    def record(self, request: RequestRecord) -> None:
        """Do nothing."""


class SpanRecorder:
    """Makes spans that continue the callers' traces."""

    is_on: Final = True

    def __init__(
        self, resource: Resource, processor: SpanProcessor, *, sampler: HeadSampler, rng: Random
    ) -> None:
        self._resource = resource
        self._processor = processor
        self._sampler = sampler
        self._rng = rng

    def begin(self, metadata: Metadata) -> TracedRequest | None:
        """Choose the ids of a call's SERVER span, if the sampler keeps its trace.

        They are chosen this early because the other requests of its batch name them.
        """
        headers = {key: value for key, value in metadata if key in (TRACEPARENT, TRACESTATE)}
        parent = parse(str(headers.get(TRACEPARENT, ""))) if headers else None
        trace_id = parent.trace_id if parent else self._random_id(128).to_bytes(16, "big")
        if not self._sampler.is_sampled(trace_id, parent):
            return None
        remote = None if parent is None else _span_context(parent, str(headers.get(TRACESTATE, "")))
        state = remote.trace_state if remote is not None else None
        context = SpanContext(
            int.from_bytes(trace_id, "big"),
            self._random_id(64),
            is_remote=False,
            trace_flags=_SAMPLED,
            trace_state=state,
        )
        return TracedRequest(Link(context), remote)

    def record(self, request: RequestRecord) -> None:
        """Make the SERVER span, its events and its children."""
        self._processor.on_end(self._server_span(request))
        if request.queued_ns:
            self._processor.on_end(self._queue_span(request))
        if request.started_ns:
            self._processor.on_end(self._execute_span(request))

    def _server_span(self, request: RequestRecord) -> ReadableSpan:
        traced = request.traced
        status = _UNSET
        if request.code in _SERVER_FAILURES:
            status = Status(StatusCode.ERROR, span_text(request.message))
        return ReadableSpan(
            request.method,
            context=traced.context,
            parent=traced.parent,
            resource=self._resource,
            attributes=_span_attributes(request),
            events=_span_events(request),
            kind=SpanKind.SERVER,
            status=status,
            start_time=request.begun_ns,
            end_time=max(request.ended_ns, request.begun_ns + 1),
            instrumentation_scope=_SCOPE,
        )

    def _queue_span(self, request: RequestRecord) -> ReadableSpan:
        until_ns = request.started_ns or request.ended_ns
        attributes: Attributes = {}
        if request.batch_rows:
            attributes[telemetry.BATCH_SIZE] = request.batch_rows
        return self._child_span(request, QUEUE, (request.queued_ns, until_ns), attributes)

    def _execute_span(self, request: RequestRecord) -> ReadableSpan:
        others = (each.link for each in request.batch if each is not request.traced)
        links = tuple(islice(others, LINKS_MAX))
        attributes: Attributes = {telemetry.BATCH_SIZE: request.batch_rows}
        left_out = len(request.batch) - 1 - len(links)
        if left_out > 0:
            attributes[telemetry.BATCH_LINKS_LEFT_OUT] = left_out
        took = (request.started_ns, request.computed_ns or request.ended_ns)
        return self._child_span(request, EXECUTE, took, attributes, links)

    def _child_span(
        self,
        request: RequestRecord,
        name: str,
        took: tuple[int, int],
        attributes: Attributes,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        parent = request.traced.context
        return ReadableSpan(
            name,
            context=SpanContext(
                parent.trace_id,
                self._random_id(64),
                is_remote=False,
                trace_flags=_SAMPLED,
                trace_state=parent.trace_state,
            ),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            links=links,
            kind=SpanKind.INTERNAL,
            status=_UNSET,
            start_time=took[0],
            end_time=max(took[1], took[0] + 1),  # Jaeger warns of one that ends as it begins
            instrumentation_scope=_SCOPE,
        )

    def _random_id(self, bits: int) -> int:
        return self._rng.getrandbits(bits) or 1  # 0 is no id


def _span_context(parent: Parent, tracestate: str) -> SpanContext:
    return SpanContext(
        trace_id=int.from_bytes(parent.trace_id, "big"),
        span_id=int.from_bytes(parent.span_id, "big"),
        is_remote=True,
        trace_flags=_SAMPLED if parent.sampled else TraceFlags(TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([tracestate]) if is_tracestate(tracestate) else None,
    )


def _span_attributes(request: RequestRecord) -> Attributes:
    attributes: Attributes = {
        telemetry.RPC_SYSTEM: "grpc",
        telemetry.RPC_METHOD: request.method,
        telemetry.RPC_STATUS: request.code,
        telemetry.MODEL: span_text(request.model),
        telemetry.MODEL_VERSION: span_text(request.version),
        telemetry.REQUEST_ID: span_text(request.request_id),
        telemetry.BATCH_SIZE: request.batch_rows,
        telemetry.FAILED: request.code in _SERVER_FAILURES,
    }
    return {name: value for name, value in attributes.items() if value}


def _span_events(request: RequestRecord) -> list[Event]:
    moments = ((QUEUE, request.queued_ns), (COMPUTE, request.started_ns))
    return [Event(name, timestamp=at_ns) for name, at_ns in moments if at_ns]

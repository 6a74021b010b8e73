"""Spans of the requests, made when they are over: a request that nobody traces costs nothing."""

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
class Traced:
    """A request whose spans are kept: a link to its SERVER span to be, and the caller's span."""

    link: Link
    parent: SpanContext | None

    @property
    def context(self) -> SpanContext:
        """The SERVER span's own."""
        return self.link.context

    def ids(self) -> dict[str, str]:
        """Return what a log line says of it."""
        return {
            "trace_id": f"{self.context.trace_id:032x}",
            "span_id": f"{self.context.span_id:016x}",
        }


@dataclass(slots=True)
class RequestRecord:
    """One request, alone or of a stream, as its spans tell it.

    Times are nanoseconds since the epoch, 0: never came.
    `batch` are the traced requests of its batch, itself among them.
    """

    traced: Traced
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
    batch: Sequence[Traced] = ()
    started_ns: int = 0
    computed_ns: int = 0


class Recorder(Protocol):
    """Where exchanges go when they are over."""

    @property
    def is_on(self) -> bool:
        """Whether anybody reads spans; if not, nobody need ask for any."""
        ...

    def begin(self, metadata: Metadata) -> Traced | None:
        """Return what a call's spans will hang on; None where its trace isn't kept."""
        ...

    def record(self, exchange: RequestRecord) -> None:
        """Take one."""
        ...


class NoSpanRecorder:
    """Nobody reads spans."""

    is_on: Final = False

    def begin(self, metadata: Metadata) -> None:
        """Keep nothing."""

    def record(self, exchange: RequestRecord) -> None:
        """Do nothing."""


class SpanRecorder:
    """Turns exchanges into spans that continue the caller's trace."""

    is_on: Final = True

    def __init__(
        self, resource: Resource, processor: SpanProcessor, *, sampler: HeadSampler, rng: Random
    ) -> None:
        self._resource = resource
        self._processor = processor
        self._sampler = sampler
        self._rng = rng

    def begin(self, metadata: Metadata) -> Traced | None:
        """Choose the ids of a call's SERVER span, if the sampler keeps its trace.

        They are chosen this early because the other requests of its batch name them.
        """
        headers = {key: value for key, value in metadata if key in (TRACEPARENT, TRACESTATE)}
        parent = parse(str(headers.get(TRACEPARENT, ""))) if headers else None
        trace_id = parent.trace_id if parent else self._id(128).to_bytes(16, "big")
        if not self._sampler.is_sampled(trace_id, parent):
            return None
        remote = None if parent is None else _remote(parent, str(headers.get(TRACESTATE, "")))
        state = remote.trace_state if remote is not None else None
        context = SpanContext(
            int.from_bytes(trace_id, "big"),
            self._id(64),
            is_remote=False,
            trace_flags=_SAMPLED,
            trace_state=state,
        )
        return Traced(Link(context), remote)

    def record(self, exchange: RequestRecord) -> None:
        """Make the SERVER span, its events and its children."""
        self._processor.on_end(self._server(exchange))
        if exchange.queued_ns:
            self._processor.on_end(self._queue(exchange))
        if exchange.started_ns:
            self._processor.on_end(self._execute(exchange))

    def _server(self, exchange: RequestRecord) -> ReadableSpan:
        traced = exchange.traced
        status = _UNSET
        if exchange.code in _SERVER_FAILURES:
            status = Status(StatusCode.ERROR, span_text(exchange.message))
        return ReadableSpan(
            exchange.method,
            context=traced.context,
            parent=traced.parent,
            resource=self._resource,
            attributes=_attributes(exchange),
            events=_events(exchange),
            kind=SpanKind.SERVER,
            status=status,
            start_time=exchange.begun_ns,
            end_time=max(exchange.ended_ns, exchange.begun_ns + 1),
            instrumentation_scope=_SCOPE,
        )

    def _queue(self, exchange: RequestRecord) -> ReadableSpan:
        until_ns = exchange.started_ns or exchange.ended_ns
        attributes: Attributes = {}
        if exchange.batch_rows:
            attributes[telemetry.BATCH_SIZE] = exchange.batch_rows
        return self._child(exchange, QUEUE, (exchange.queued_ns, until_ns), attributes)

    def _execute(self, exchange: RequestRecord) -> ReadableSpan:
        others = (each.link for each in exchange.batch if each is not exchange.traced)
        links = tuple(islice(others, LINKS_MAX))
        attributes: Attributes = {telemetry.BATCH_SIZE: exchange.batch_rows}
        left_out = len(exchange.batch) - 1 - len(links)
        if left_out > 0:
            attributes[telemetry.BATCH_LINKS_LEFT_OUT] = left_out
        took = (exchange.started_ns, exchange.computed_ns or exchange.ended_ns)
        return self._child(exchange, EXECUTE, took, attributes, links)

    def _child(
        self,
        exchange: RequestRecord,
        name: str,
        took: tuple[int, int],
        attributes: Attributes,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        parent = exchange.traced.context
        return ReadableSpan(
            name,
            context=SpanContext(
                parent.trace_id,
                self._id(64),
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

    def _id(self, bits: int) -> int:
        return self._rng.getrandbits(bits) or 1  # 0 is no id


def _remote(parent: Parent, tracestate: str) -> SpanContext:
    return SpanContext(
        trace_id=int.from_bytes(parent.trace_id, "big"),
        span_id=int.from_bytes(parent.span_id, "big"),
        is_remote=True,
        trace_flags=_SAMPLED if parent.sampled else TraceFlags(TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([tracestate]) if is_tracestate(tracestate) else None,
    )


def _attributes(exchange: RequestRecord) -> Attributes:
    attributes: Attributes = {
        telemetry.RPC_SYSTEM: "grpc",
        telemetry.RPC_METHOD: exchange.method,
        telemetry.RPC_STATUS: exchange.code,
        telemetry.MODEL: span_text(exchange.model),
        telemetry.MODEL_VERSION: span_text(exchange.version),
        telemetry.REQUEST_ID: span_text(exchange.request_id),
        telemetry.BATCH_SIZE: exchange.batch_rows,
        telemetry.FAILED: exchange.code in _SERVER_FAILURES,
    }
    return {name: value for name, value in attributes.items() if value}


def _events(exchange: RequestRecord) -> list[Event]:
    moments = ((QUEUE, exchange.queued_ns), (COMPUTE, exchange.started_ns))
    return [Event(name, timestamp=at_ns) for name, at_ns in moments if at_ns]

"""An OTLP collector in this process: takes spans over real gRPC, and lets a test look at them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

Value = Any  # what an OTLP attribute may hold


@dataclass(frozen=True)
class ReceivedEvent:
    name: str
    time_ns: int
    attributes: dict[str, Value]


@dataclass(frozen=True)
class ReceivedSpan:
    """Ids are lower-case hex; `parent_id` is empty at a root."""

    service: str
    name: str
    kind: str  # SERVER, CLIENT, INTERNAL, …
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: str  # UNSET, OK, ERROR
    status_text: str
    attributes: dict[str, Value]
    events: tuple[ReceivedEvent, ...]
    links: tuple[tuple[str, str], ...] = ()  # trace id and span id of each

    def event(self, name: str) -> ReceivedEvent:
        found = [each for each in self.events if each.name == name]
        assert len(found) == 1, f"{len(found)} events '{name}' in {self.name}"
        return found[0]


Wanted = Callable[["Received"], bool]
Take = Callable[[Sequence[ReceivedSpan]], None]


def nothing(_spans: Sequence[ReceivedSpan]) -> None:
    """Do nothing more with spans that came."""


class Received:
    """The spans that came; thread-safe. `take` is called with each batch before it counts."""

    def __init__(self, take: Take = nothing) -> None:
        self._take_too = take
        self._changed = threading.Condition()
        self._spans: list[ReceivedSpan] = []

    @property
    def spans(self) -> list[ReceivedSpan]:
        with self._changed:
            return list(self._spans)

    def named(self, name: str, *, service: str | None = None) -> list[ReceivedSpan]:
        return [
            each
            for each in self.spans
            if each.name == name and (service is None or each.service == service)
        ]

    def having(self, attribute: str) -> list[ReceivedSpan]:
        return [each for each in self.spans if attribute in each.attributes]

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        return [each for each in self.spans if each.trace_id == trace_id]

    def children(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        return [each for each in self.trace(parent.trace_id) if each.parent_id == parent.span_id]

    def wait_for(self, wanted: Wanted, *, timeout_s: float = 10.0) -> None:
        """Block until `wanted(receiver)` holds; from a test on a loop, use asyncio.to_thread."""
        with self._changed:
            if not self._changed.wait_for(lambda: wanted(self), timeout_s):
                names = [f"{each.service}: {each.name}" for each in self._spans]
                raise AssertionError(f"not received within {timeout_s} s; got {names}")

    def wait_for_named(
        self, name: str, count: int = 1, *, service: str | None = None, timeout_s: float = 10.0
    ) -> list[ReceivedSpan]:
        """Return the spans of that name once there are `count`."""
        self.wait_for(
            lambda receiver: len(receiver.named(name, service=service)) >= count,
            timeout_s=timeout_s,
        )
        return self.named(name, service=service)

    def wait_for_trace(
        self, trace_id: str, count: int, *, timeout_s: float = 10.0
    ) -> list[ReceivedSpan]:
        """Return the spans of a trace once there are `count`."""
        self.wait_for(lambda receiver: len(receiver.trace(trace_id)) >= count, timeout_s=timeout_s)
        return self.trace(trace_id)

    def take(self, spans: list[ReceivedSpan]) -> None:
        with self._changed:
            self._take_too(spans)
            self._spans.extend(spans)
            self._changed.notify_all()


class OtlpReceiver(Received):
    """Listens on a port of its own from `with` on.

    `take` is called with each batch before it is acknowledged, one after the other.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        take: Take = nothing,
        message_bytes: int = 0,
        tls: grpc.ServerCredentials | None = None,
    ) -> None:
        super().__init__(take)
        self._scheme = "https" if tls else "http"
        bounds = [("grpc.max_receive_message_length", message_bytes)] if message_bytes else []
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2), options=bounds)
        service_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]  # no types in the library
            _Servicer(self.take), self._server
        )
        add = self._server.add_insecure_port
        self._port = self._server.add_secure_port(address, tls) if tls else add(address)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(grace=None).wait()

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT and for OTLPSpanExporter(endpoint=…, insecure=True)."""
        return f"{self._scheme}://127.0.0.1:{self._port}"


class _Servicer(service_grpc.TraceServiceServicer):
    def __init__(self, take: Callable[[list[ReceivedSpan]], None]) -> None:
        self._take = take

    def Export(
        self, request: service_pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> service_pb.ExportTraceServiceResponse:
        self._take(list(spans_of(request)))
        return service_pb.ExportTraceServiceResponse()


def spans_of(request: service_pb.ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        service = str(_attributes(group.resource.attributes).get("service.name", ""))
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _received(service, span)


def _received(service: str, span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_text=span.status.message,
        attributes=_attributes(span.attributes),
        events=tuple(
            ReceivedEvent(each.name, each.time_unix_nano, _attributes(each.attributes))
            for each in span.events
        ),
        links=tuple((each.trace_id.hex(), each.span_id.hex()) for each in span.links),
    )


def _attributes(pairs: Any) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)

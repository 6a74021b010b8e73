from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from coalmine.inference import MODEL_INFER as METHOD
from coalmine_server.spans import Exchange, NoSpans, Spans

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def exchange(**fields: object) -> Exchange:
    made = Exchange(
        begun_ns=100,
        ended_ns=900,
        model="digits",
        version="2",
        request_id="r-1",
        batch_rows=3,
        queued_ns=200,
        started_ns=400,
        computed_ns=800,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def recorded(
    told: Exchange, metadata: Sequence[tuple[str, str | bytes]] = ()
) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    Spans(Resource.create(), SimpleSpanProcessor(exporter)).record(told, metadata)
    return {span.name: span for span in exporter.get_finished_spans()}


def parent(flags: str = "01") -> list[tuple[str, str | bytes]]:
    return [("traceparent", f"00-{TRACE}-{CALLER}-{flags}"), ("tracestate", "v=1"), ("x-bin", b"")]


def test_a_request_is_one_server_span_with_two_children_and_two_events() -> None:
    spans = recorded(exchange())
    server = spans[METHOD]
    assert server.kind is SpanKind.SERVER
    assert (server.start_time, server.end_time) == (100, 900)
    assert [(each.name, each.timestamp) for each in server.events] == [
        ("queue", 200),
        ("compute", 400),
    ]
    assert dict(server.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.status_code": "OK",
        "coalmine.model": "digits",
        "coalmine.model.version": "2",
        "coalmine.request.id": "r-1",
        "coalmine.batch.size": 3,
    }
    for name, times in {"queue": (200, 400), "execute": (400, 800)}.items():
        child = spans[name]
        assert (child.start_time, child.end_time) == times
        assert child.kind is SpanKind.INTERNAL
        assert child.parent is not None
        assert child.parent.span_id == server.context.span_id


def test_the_callers_trace_goes_on() -> None:
    server = recorded(exchange(), parent())[METHOD]
    assert server.parent is not None
    assert f"{server.context.trace_id:032x}" == TRACE
    assert f"{server.parent.span_id:016x}" == CALLER
    assert server.parent.is_remote
    assert server.context.trace_state.to_header() == "v=1"


def test_a_trace_that_the_caller_does_not_keep_is_not_kept_here() -> None:
    assert recorded(exchange(), parent("00")) == {}


@pytest.mark.parametrize("metadata", [(), [("traceparent", "nonsense")], [("traceparent", b"x")]])
def test_without_a_valid_parent_a_new_trace_begins(
    metadata: Sequence[tuple[str, str | bytes]],
) -> None:
    assert recorded(exchange(), metadata)[METHOD].parent is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INTERNAL", StatusCode.ERROR),
        ("DEADLINE_EXCEEDED", StatusCode.ERROR),
        ("UNAVAILABLE", StatusCode.ERROR),
        ("INVALID_ARGUMENT", StatusCode.UNSET),
        ("RESOURCE_EXHAUSTED", StatusCode.UNSET),
        ("CANCELLED", StatusCode.UNSET),
        ("OK", StatusCode.UNSET),
    ],
)
def test_only_the_servers_own_failures_are_errors(code: str, status: StatusCode) -> None:
    assert recorded(exchange(code=code, message="why"))[METHOD].status.status_code is status


def test_a_request_that_never_ran_has_waited_till_its_end() -> None:
    spans = recorded(exchange(started_ns=0, computed_ns=0, batch_rows=0))
    assert set(spans) == {METHOD, "queue"}
    assert spans["queue"].end_time == 900


def test_a_request_that_was_refused_has_no_children() -> None:
    assert set(recorded(exchange(queued_ns=0, started_ns=0))) == {METHOD}


def test_a_long_id_is_cut() -> None:
    server = recorded(exchange(request_id="x" * 10_000))[METHOD]
    assert server.attributes is not None
    assert server.attributes["coalmine.request.id"] == "x" * 2048


def test_where_nobody_reads_nothing_is_done() -> None:
    assert not NoSpans().is_on
    NoSpans().record(exchange(), parent())

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import grpc
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from coalmine.inference import MODEL_INFER as METHOD
from coalmine.trace_context import sampler_from
from coalmine_server.spans import (
    LINKS_MAX,
    Metadata,
    NoSpanRecorder,
    RequestRecord,
    RequestRecorder,
    SpanRecorder,
    TracedRequest,
)

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record_of(traced: TracedRequest, **fields: object) -> RequestRecord:
    made = RequestRecord(
        traced=traced,
        begun_ns=100,
        ended_ns=900,
        model="digits",
        version="2",
        request_id="r-1",
        batch_rows=3,
        batch=[traced],
        queued_ns=200,
        started_ns=400,
        computed_ns=800,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Recorded:
    """Spans, and what came of them."""

    def __init__(self, sampler: str = "parentbased_always_on") -> None:
        self._exporter = InMemorySpanExporter()
        self.spans = SpanRecorder(
            Resource.create(),
            SimpleSpanProcessor(self._exporter),
            sampler=sampler_from({"OTEL_TRACES_SAMPLER": sampler}),
            rng=Random(7),
        )

    def begin(self, metadata: Metadata = ()) -> TracedRequest:
        traced = self.spans.begin(metadata)
        assert traced is not None
        return traced

    def by_name(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def recorded(metadata: Metadata = (), **fields: object) -> dict[str, ReadableSpan]:
    made = Recorded()
    made.spans.record(record_of(made.begin(metadata), **fields))
    return made.by_name()


def parent(flags: str = "01") -> list[tuple[str, str | bytes]]:
    return [("traceparent", f"00-{TRACE}-{CALLER}-{flags}"), ("tracestate", "v=1"), ("x-bin", b"")]


def test_a_request_is_one_server_span_with_two_children_and_two_events() -> None:
    spans = recorded()
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
        assert dict(child.attributes or {}) == {"coalmine.batch.size": 3}
        assert child.parent is not None
        assert child.parent.span_id == server.context.span_id


def test_the_callers_trace_goes_on() -> None:
    server = recorded(parent())[METHOD]
    assert server.parent is not None
    assert f"{server.context.trace_id:032x}" == TRACE
    assert f"{server.parent.span_id:016x}" == CALLER
    assert server.parent.is_remote
    assert server.context.trace_state.to_header() == "v=1"


def test_a_trace_that_the_caller_does_not_keep_is_not_kept_here() -> None:
    assert Recorded().spans.begin(parent("00")) is None


def test_the_sampler_decides_where_no_caller_did() -> None:
    never = Recorded("parentbased_always_off").spans
    assert never.begin(()) is None
    assert never.begin(parent()) is not None
    assert Recorded("always_off").spans.begin(parent()) is None
    always = Recorded("always_on").begin(parent("00"))
    assert always.context.trace_flags.sampled


@pytest.mark.parametrize("metadata", [(), [("traceparent", "nonsense")], [("traceparent", b"x")]])
def test_without_a_valid_parent_a_new_trace_begins(
    metadata: Sequence[tuple[str, str | bytes]],
) -> None:
    assert recorded(metadata)[METHOD].parent is None


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
    assert recorded(code=code, message="why")[METHOD].status.status_code is status


def test_the_document_names_what_counts_as_failed() -> None:
    lines = (Path(__file__).parents[3] / "docs/tracing.md").read_text().splitlines()
    (row,) = [each for each in lines if each.startswith("| `coalmine.failed`")]
    told = row.partition("the server's only for ")[2].partition(", as")[0]
    failed = [
        each.name
        for each in grpc.StatusCode
        if (recorded(code=each.name)[METHOD].attributes or {}).get("coalmine.failed")
    ]
    assert sorted(re.findall(r"`(\w+)`", told)) == sorted(failed)


def test_a_request_that_never_ran_has_waited_till_its_end() -> None:
    spans = recorded(started_ns=0, computed_ns=0, batch_rows=0)
    assert set(spans) == {METHOD, "queue"}
    assert spans["queue"].end_time == 900


def test_a_request_that_was_refused_has_no_children() -> None:
    assert set(recorded(queued_ns=0, started_ns=0)) == {METHOD}


def test_a_long_id_is_cut() -> None:
    server = recorded(request_id="x" * 10_000)[METHOD]
    assert server.attributes is not None
    assert server.attributes["coalmine.request.id"] == "x" * 2048


def test_a_text_is_cut_to_2_kib_between_characters() -> None:
    server = recorded(request_id="x" + "\U0001f600" * 3_000)[METHOD]
    assert server.attributes is not None
    assert server.attributes["coalmine.request.id"] == "x" + "\U0001f600" * 511


def test_the_execute_span_links_the_server_spans_of_the_others_in_its_batch() -> None:
    made = Recorded()
    mine, *others = [made.begin(), made.begin(parent()), made.begin()]
    made.spans.record(record_of(mine, batch=[others[0], mine, others[1]]))
    spans = made.by_name()
    assert [each.context for each in spans["execute"].links] == [each.context for each in others]
    assert spans[METHOD].links == spans["queue"].links == ()


def test_links_are_bounded_and_those_left_out_are_counted() -> None:
    made = Recorded()
    batch = [made.begin() for _ in range(LINKS_MAX + 6)]
    made.spans.record(record_of(batch[-1], batch=batch))
    execute = made.by_name()["execute"]
    assert len(execute.links) == LINKS_MAX
    assert (execute.attributes or {})["coalmine.batch.links_left_out"] == 5


def test_ids_differ_from_one_span_to_the_next() -> None:
    made = Recorded()
    first, second = made.begin(parent()), made.begin(parent())
    assert first.context.trace_id == second.context.trace_id
    made.spans.record(record_of(first))
    ids = {span.context.span_id for span in made.by_name().values()}
    assert len(ids | {second.context.span_id}) == 4


def test_a_log_line_names_the_server_span() -> None:
    traced = Recorded().begin(parent())
    assert traced.log_ids() == {"trace_id": TRACE, "span_id": f"{traced.context.span_id:016x}"}


def test_where_nobody_reads_nothing_is_done() -> None:
    assert not NoSpanRecorder().is_on
    nobody: RequestRecorder = NoSpanRecorder()
    assert nobody.begin(parent()) is None
    nobody.record(record_of(Recorded().begin()))

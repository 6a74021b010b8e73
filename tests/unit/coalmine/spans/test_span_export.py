"""Spans through the real SDK to an exporter that is ours: counted, bounded, rotated."""

import errno
import io
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.spans.span_export import CountedSpans, SpanOutputs
from coalmine.spans.span_exporter import open_exporters
from coalmine.spans.span_resource import resource
from coalmine.spans.span_settings import BatchSettings
from tests.doubles.split_route import closed_port


class Collector(SpanExporter):
    """Keeps spans; while `closed`, holds whoever exports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.result = SpanExportResult.SUCCESS
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        self.names += [span.name for span in spans]
        return self.result

    def shutdown(self) -> None: ...


def span(name: str = "s", *, sampled: bool = True) -> ReadableSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    context = SpanContext(1, 2, is_remote=False, trace_flags=flags)
    return ReadableSpan(name, context=context, start_time=1, end_time=2)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def spans(collector: Collector) -> Iterator[CountedSpans]:
    counted = CountedSpans(collector, BatchSettings(4, 4))
    yield counted
    collector.open.set()
    counted.shutdown()


def totals(spans: CountedSpans) -> tuple[int, int, int]:
    """Return how many were exported, dropped as too many, and failed; none was too large."""
    found = spans.totals()
    assert found["dropped_too_large"] == 0
    return found["exported"], found["dropped_queue_full"], found["dropped_export_failed"]


# ---------------------------------------------------------------- counting


def test_spans_that_were_exported_are_counted(spans: CountedSpans, collector: Collector) -> None:
    for name in "abc":
        spans.on_end(span(name))
    spans.force_flush()

    assert collector.names == ["a", "b", "c"]
    assert totals(spans) == (3, 0, 0)


def test_spans_over_the_bound_are_dropped_and_counted(
    spans: CountedSpans, collector: Collector
) -> None:
    collector.open.clear()
    for _ in range(4):  # a full batch, which the collector takes and holds
        spans.on_end(span("held"))
    assert collector.entered.wait(30)
    for _ in range(4):
        spans.on_end(span("queued"))
    for _ in range(3):
        spans.on_end(span("too many"))
    collector.open.set()
    spans.force_flush()

    assert totals(spans) == (8, 3, 0)
    assert collector.names == ["held"] * 4 + ["queued"] * 4


def test_a_full_queue_has_room_again_once_it_was_exported(
    spans: CountedSpans, collector: Collector
) -> None:
    for _ in range(3):
        for _ in range(4):
            spans.on_end(span())
        spans.force_flush()

    assert spans.totals()["exported"] == 12


def test_spans_that_arent_sampled_neither_count_nor_fill_the_queue(
    spans: CountedSpans, collector: Collector
) -> None:
    for _ in range(10):
        spans.on_end(span(sampled=False))
    spans.on_end(span("kept"))
    spans.force_flush()

    assert collector.names == ["kept"]
    assert totals(spans) == (1, 0, 0)


def test_a_refusing_collector_is_counted(spans: CountedSpans, collector: Collector) -> None:
    collector.result = SpanExportResult.FAILURE
    spans.on_end(span())
    spans.force_flush()

    assert spans.totals()["dropped_export_failed"] == 1


def test_an_exporter_that_raises_is_counted_as_failed(
    spans: CountedSpans, collector: Collector
) -> None:
    collector.error = OSError("disk full")
    spans.on_end(span())
    spans.force_flush()
    collector.error = None
    spans.on_end(span("after"))
    spans.force_flush()

    assert totals(spans) == (1, 0, 1)


# ---------------------------------------------------------------- outages


class Full(io.StringIO):
    """A file on a disk that has no room, until it has."""

    is_full = True

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def exported(spans: CountedSpans, batches: int = 1) -> None:
    for _ in range(batches):
        spans.on_end(span())
        spans.force_flush()


def test_each_outage_is_told_once_and_once_that_it_is_over(
    spans: CountedSpans, collector: Collector
) -> None:
    with capture_logs() as logs:
        exported(spans, 2)
        for _ in range(2):
            collector.error = OSError("disk full")
            exported(spans, 3)
            collector.error = None
            exported(spans, 3)

    assert [(each["event"], each.get("reason")) for each in logs] == [
        ("spans_not_exported", "OSError: disk full"),
        ("spans_exported_again", None),
    ] * 2
    assert spans.totals()["dropped_export_failed"] == 6


def test_a_full_disk_is_told_with_its_reason_and_not_for_each_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = Full()
    spans = CountedSpans(FileSpanExporter(stream=file))
    with capture_logs() as logs:
        exported(spans, 5)
        told = spans.trouble()
        file.is_full = False
        exported(spans)
    spans.shutdown()

    assert [each["event"] for each in logs] == ["spans_not_exported", "spans_exported_again"]
    assert "OSError: [Errno 28] No space left on device" in logs[0]["reason"]
    assert told.startswith("spans are not exported: ")
    assert told.endswith("No space left on device")
    assert spans.trouble() == ""
    assert caplog.records == []
    assert totals(spans) == (1, 0, 5)


def test_a_collector_that_is_gone_is_told_with_its_reason_and_not_for_each_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = f"http://{closed_port()}"
    spans = CountedSpans(OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=0.2))
    with capture_logs() as logs:
        exported(spans, 3)
    spans.shutdown()

    assert [each["event"] for each in logs] == ["spans_not_exported"]
    assert "UNAVAILABLE" in logs[0]["reason"]
    assert caplog.records == []


def test_what_the_same_exporters_log_elsewhere_is_not_kept_back(
    spans: CountedSpans, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    exporters = logging.getLogger("opentelemetry.exporter.otlp.json.file.trace_exporter")
    collector.open.clear()
    for _ in range(4):  # a full batch, which is exported in a thread of its own
        spans.on_end(span())
    assert collector.entered.wait(30)
    exporters.error("of another export")
    collector.open.set()
    spans.force_flush()
    exporters.error("later")

    assert caplog.messages == ["of another export", "later"]


def test_a_shutdown_exports_what_is_queued(collector: Collector) -> None:
    spans = CountedSpans(collector)
    spans.on_end(span())
    spans.shutdown()

    assert spans.totals()["exported"] == 1


def test_a_collector_that_hangs_doesnt_hold_up_a_shutdown(collector: Collector) -> None:
    spans = CountedSpans(collector)
    collector.open.clear()
    spans.on_end(span())

    stopped = threading.Thread(target=spans.shutdown, kwargs={"timeout_s": 0.05})
    stopped.start()
    stopped.join(10)

    assert not stopped.is_alive()
    collector.open.set()


def test_a_slow_collector_has_the_time_that_is_given(collector: Collector) -> None:
    class Slow(Collector):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            time.sleep(0.3)
            return super().export(spans)

    slow = Slow()
    spans = CountedSpans(slow, BatchSettings(100, 1, 3_600_000))
    for _ in range(9):
        spans.on_end(span())
    spans.shutdown(30)

    assert len(slow.names) == 9, "though it took longer than two seconds"


def test_what_is_given_up_at_the_end_is_said(collector: Collector) -> None:
    spans = CountedSpans(collector, BatchSettings(8, 4, 3_600_000))
    collector.open.clear()
    for _ in range(6):
        spans.on_end(span())
    with capture_logs() as logs:
        spans.shutdown(0.05)
    collector.open.set()

    (given_up,) = (each for each in logs if each["event"] == "spans_given_up")
    assert (given_up["spans"], given_up["reason"]) == (6, "the collector was too slow")


def test_a_collector_that_takes_nothing_is_given_two_seconds_of_the_grace_period() -> None:
    exporter = OTLPSpanExporter(endpoint=f"http://{closed_port()}", insecure=True)
    spans = CountedSpans(exporter, BatchSettings(100, 1, 3_600_000))
    for _ in range(20):
        spans.on_end(span())
    exported(spans, 0)
    began_s = time.monotonic()
    with capture_logs() as logs:
        spans.shutdown(60)

    assert time.monotonic() - began_s < 30
    assert "spans_given_up" in [each["event"] for each in logs]


def test_why_a_first_export_is_given_up_is_said_though_its_attempts_are_not_over() -> None:
    exporter = OTLPSpanExporter(endpoint=f"http://{closed_port()}", insecure=True)
    spans = CountedSpans(exporter, BatchSettings(8, 8, 3_600_000))
    spans.on_end(span())
    with capture_logs() as logs:
        spans.shutdown(0.5)

    assert "UNAVAILABLE" in logs[0]["reason"]


def test_every_span_of_many_threads_is_counted_once(collector: Collector) -> None:
    spans = CountedSpans(collector, BatchSettings(64, 64))

    def end_many() -> None:
        for _ in range(200):
            spans.on_end(span())

    threads = [threading.Thread(target=end_many) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    spans.shutdown(30)

    assert sum(spans.totals().values()) == 800


# ---------------------------------------------------------------- two ways at once


def test_files_and_a_collector_get_every_span_and_neither_waits_for_the_other(
    collector: Collector,
) -> None:
    hanging = Collector()
    hanging.open.clear()
    outputs = SpanOutputs([CountedSpans(hanging), CountedSpans(collector, BatchSettings(8, 1, 10))])
    for name in "abc":
        outputs.on_end(span(name))
    began_s = time.monotonic()
    while len(collector.names) < 3 and time.monotonic() < began_s + 10:
        time.sleep(0.01)
    assert collector.names == ["a", "b", "c"]
    hanging.error = OSError("gone")
    hanging.open.set()
    outputs.shutdown(10)
    assert (outputs.totals()["exported"], outputs.totals()["dropped_export_failed"]) == (3, 3)
    assert outputs.trouble() == "spans are not exported: OSError: gone"


def test_at_the_end_neither_waits_for_the_other(collector: Collector) -> None:
    hanging = Collector()
    hanging.open.clear()
    outputs = SpanOutputs([CountedSpans(hanging), CountedSpans(collector)])
    outputs.on_end(span("a"))
    collector.open.clear()
    threading.Timer(0.1, collector.open.set).start()
    with capture_logs() as logs:
        outputs.shutdown(0.5)
    assert collector.names == ["a"]
    assert [each["spans"] for each in logs if each["event"] == "spans_given_up"] == [1]
    hanging.open.set()


def test_the_variable_names_both_and_then_there_are_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,otlp_json_file")
    first, second = open_exporters(tmp_path / "traces")
    assert isinstance(first, OTLPSpanExporter)
    assert isinstance(second, FileSpanExporter)
    for each in (first, second):
        each.shutdown()


# ---------------------------------------------------------------- where to


def test_without_an_endpoint_spans_go_to_files_that_jaeger_opens(tmp_path: Path) -> None:
    (exporter,) = open_exporters(tmp_path / "traces", {})
    assert isinstance(exporter, FileSpanExporter)
    provider = TracerProvider(resource=resource("coalmine-router", {}))
    spans = CountedSpans(exporter)
    provider.add_span_processor(spans)

    provider.get_tracer("t").start_span("a span").end()
    provider.shutdown()

    (line,) = (tmp_path / "traces" / "traces-000001.jsonl").read_text().splitlines()
    (found,) = json.loads(line)["resourceSpans"]
    assert found["scopeSpans"][0]["spans"][0]["name"] == "a span"
    attributes = {each["key"]: each["value"] for each in found["resource"]["attributes"]}
    assert attributes["service.name"] == {"stringValue": "coalmine-router"}


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_whoever_turns_spans_off_gets_none(environ: dict[str, str], tmp_path: Path) -> None:
    assert open_exporters(tmp_path / "traces", environ) == []
    assert list(tmp_path.iterdir()) == []


def test_without_an_endpoint_and_a_folder_nobody_reads_spans() -> None:
    assert open_exporters(None, {}) == []


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
)
def test_an_endpoint_takes_the_spans_and_leaves_no_files(name: str, tmp_path: Path) -> None:
    (exporter,) = open_exporters(tmp_path / "traces", {name: "http://127.0.0.1:1"})

    assert isinstance(exporter, OTLPSpanExporter)
    exporter.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_a_trace_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("")
    with pytest.raises(StartError, match="traces: file exists"):
        open_exporters(tmp_path / "traces", {})


def test_a_trace_folder_that_can_wait_is_made_once_that_is_possible(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("")
    (exporter,) = open_exporters(tmp_path / "traces", {}, at_once=False)
    spans = CountedSpans(exporter)
    with capture_logs() as logs:
        exported(spans, 2)
        assert "File exists" in spans.trouble()
        (tmp_path / "traces").unlink()
        exported(spans)
    spans.shutdown()

    assert [each["event"] for each in logs] == ["spans_not_exported", "spans_exported_again"]
    assert len((tmp_path / "traces" / "traces-000001.jsonl").read_text().splitlines()) == 1

"""The size of spans, beside what the exporter makes of them, and their export in parts that fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from structlog.testing import capture_logs

from coalmine.spans.span_export import CountedSpans
from coalmine.spans.span_exporter import open_exporters
from coalmine.spans.span_settings import BatchSettings
from coalmine.spans.span_size import parts_of, size_of
from tests.doubles.certificates import Authority
from tests.doubles.otlp_receiver import OtlpReceiver

MIB = 1024 * 1024
SAMPLED = SpanContext(2**127, 2**63, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def made(name: str = "s", bytes_: int = 0, **more: Any) -> ReadableSpan:
    attributes = {"text": "x" * bytes_} if bytes_ else {}
    return ReadableSpan(
        name, context=SAMPLED, start_time=2**60, end_time=2**60, attributes=attributes, **more
    )


texts = st.text(max_size=30)
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.lists(texts, max_size=4).map(tuple),
)
pairs = st.dictionaries(texts, values, max_size=5)


@settings(max_examples=60)
@given(
    name=texts,
    attributes=pairs,
    events=st.lists(st.tuples(texts, pairs), max_size=4),
    links=st.lists(pairs, max_size=3),
    status=texts,
)
def test_a_span_takes_no_more_than_its_size_and_not_much_less(
    name: str,
    attributes: dict[str, Any],
    events: list[tuple[str, dict[str, Any]]],
    links: list[dict[str, Any]],
    status: str,
) -> None:
    span = ReadableSpan(
        name,
        context=SAMPLED,
        parent=SAMPLED,
        start_time=2**60,
        end_time=2**60,
        attributes=attributes,
        events=[Event(each, of, 2**60) for each, of in events],
        links=[Link(SAMPLED, of) for of in links],
        status=Status(StatusCode.ERROR, status),
    )
    encoded = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].ByteSize()
    pieces = (
        len(attributes) + sum(1 + len(of) for _, of in events) + sum(1 + len(of) for of in links)
    )
    assert encoded - 32 <= size_of(span) <= encoded + 128 + 120 * pieces


def test_parts_keep_the_order_and_are_of_bounded_size() -> None:
    spans = [made(str(at), size) for at, size in enumerate([10, 5_000, 10, 10, 900, 900, 10])]
    parts = [[each.name for each in part] for part in parts_of(spans, 2_000)]
    assert parts == [["0"], ["1"], ["2", "3", "4"], ["5", "6"]]
    assert list(parts_of([], 2_000)) == []


# ---------------------------------------------------------------- to a collector


def sent(
    receiver: OtlpReceiver,
    spans: Sequence[ReadableSpan],
    said: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, int], list[str]]:
    """Return what became of spans that are sent in one batch, and which arrived."""
    (exporter,) = open_exporters(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **said})
    assert isinstance(exporter, OTLPSpanExporter)
    counted = CountedSpans(exporter, BatchSettings(256, 256, 3_600_000))
    for span in spans:
        counted.on_end(span)
    counted.shutdown(30)
    return counted.totals(), [each.name for each in receiver.spans]


def test_spans_over_what_a_collector_takes_go_in_several_requests() -> None:
    names = [str(at) for at in range(100)]
    with OtlpReceiver() as receiver:  # takes 4 MiB, as gRPC does unless it is told otherwise
        totals, arrived = sent(receiver, [made(name, 100_000) for name in names])
    assert arrived == names
    assert totals["exported"] == 100


@pytest.mark.parametrize("large", [[3], [0, 1, 2, 3, 4, 5, 6]])
def test_a_span_that_is_too_large_by_itself_costs_no_other_its_place(large: list[int]) -> None:
    spans = [made(str(at), 200_000 if at in large else 10) for at in range(9)]
    with OtlpReceiver(message_bytes=100_000) as receiver, capture_logs() as logs:
        totals, arrived = sent(receiver, spans)
    assert arrived == [str(at) for at in range(9) if at not in large]
    assert totals == {
        "exported": 9 - len(large),
        "dropped_queue_full": 0,
        "dropped_export_failed": 0,
        "dropped_too_large": len(large),
    }
    assert [each["event"] for each in logs] == ["span_too_large"], "once, and it is no outage"


@pytest.mark.parametrize("prefix", ["OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"])
def test_by_grpc_too_the_certificates_are_those_that_are_said(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    pair, caller = ours.server(), ours.client("caller")
    tls = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())],
        root_certificates=ours.ca.read_bytes(),
        require_client_auth=True,
    )
    said = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(ours.ca),
        f"{prefix}CLIENT_KEY": str(caller.key),
        f"{prefix}CLIENT_CERTIFICATE": str(caller.cert),
    }
    with OtlpReceiver(tls=tls) as receiver, capture_logs() as logs:
        assert sent(receiver, [made("a", 10)], said)[1] == ["a"]
        wrong = {**said, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(other.ca)}
        assert sent(receiver, [made("b", 10)], wrong)[0]["dropped_export_failed"] == 1
    assert [each["event"] for each in logs if each["log_level"] == "error"] == [
        "spans_not_exported"
    ]


def test_what_waits_is_bounded_in_bytes_too() -> None:
    with OtlpReceiver() as receiver:
        exporter = OTLPSpanExporter(endpoint=receiver.endpoint, insecure=True)
        counted = CountedSpans(exporter, BatchSettings(256, 256, 3_600_000), queue_bytes_max=MIB)
        for at in range(8):
            counted.on_end(made(str(at), MIB // 4))
        counted.shutdown(30)
    assert counted.totals()["dropped_queue_full"] == 5
    assert [each.name for each in receiver.spans] == ["0", "1", "2"]

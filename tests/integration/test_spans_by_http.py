"""Spans by OTLP over HTTP: to a real server, which takes them, refuses them or is gone."""

import gc
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from structlog.testing import capture_logs
from structlog.typing import EventDict

from coalmine.spans.span_export import CountedSpans
from coalmine.spans.span_exporter import open_exporters
from coalmine.spans.span_settings import BatchSettings
from tests.doubles.certificates import Authority
from tests.doubles.otlp_http_receiver import HttpAnswer, OtlpHttpReceiver
from tests.doubles.split_route import closed_port

OTLP = "OTEL_EXPORTER_OTLP_"
BY_HTTP = {f"{OTLP}PROTOCOL": "http/protobuf"}


def span(name: str, size: int = 10) -> ReadableSpan:
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    attributes = {"text": "x" * size}
    return ReadableSpan(name, context=context, attributes=attributes, start_time=1, end_time=2)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def sent(
    environ: pytest.MonkeyPatch, said: Mapping[str, str], *spans: ReadableSpan
) -> tuple[dict[str, int], list[EventDict]]:
    """Return what became of spans that are sent in one batch, and what was logged of it."""
    for name, value in {**BY_HTTP, f"{OTLP}TIMEOUT": "2.5", **said}.items():
        environ.setenv(name, value)
    (exporter,) = open_exporters(None)
    counted = CountedSpans(exporter, BatchSettings(256, 256, 3_600_000))
    with capture_logs() as logs:
        for each in spans or (span("a"),):
            counted.on_end(each)
        counted.shutdown(30)
    totals = {key: value for key, value in counted.totals().items() if value}
    del exporter, counted
    gc.collect()  # a connection that nobody closed is an error of the test that left it
    return totals, logs


@pytest.mark.parametrize(
    ("variable", "behind", "path"),
    [
        ("ENDPOINT", "", "/v1/traces"),
        ("ENDPOINT", "/", "/v1/traces"),
        ("ENDPOINT", "/otlp/", "/otlp/v1/traces"),
        ("TRACES_ENDPOINT", "", "/"),
        ("TRACES_ENDPOINT", "/x/y", "/x/y"),
    ],
)
def test_the_path_is_below_the_base_and_as_it_is_for_traces(
    variable: str, behind: str, path: str, environ: pytest.MonkeyPatch
) -> None:
    with OtlpHttpReceiver() as receiver:
        totals, _ = sent(environ, {f"{OTLP}{variable}": receiver.endpoint + behind})
    assert ([each.path for each in receiver.requests], totals) == ([path], {"exported": 1})
    assert [each.name for each in receiver.spans] == ["a"]


def test_headers_travel_also_with_a_space_and_before_what_netrc_says(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    environ.setenv("HOME", str(tmp_path))
    headers = "authorization=Basic abc==,x-tenant=t%203"
    with OtlpHttpReceiver() as receiver:
        sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint, f"{OTLP}TRACES_HEADERS": headers})
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["authorization"] == "Basic abc=="
    assert request.headers["x-tenant"] == "t 3"


def test_a_request_is_compressed_where_that_is_said(environ: pytest.MonkeyPatch) -> None:
    with OtlpHttpReceiver() as receiver:
        said = {f"{OTLP}ENDPOINT": receiver.endpoint, f"{OTLP}COMPRESSION": "GZIP"}
        totals, _ = sent(environ, said, span("large", 100_000))
    assert (receiver.requests[0].size < 10_000, totals) == (True, {"exported": 1})


def test_by_tls_the_certificates_of_both_sides_are_those_that_are_said(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    environ.setenv("REQUESTS_CA_BUNDLE", str(other.ca))
    caller = ours.client("caller")
    said = {
        f"{OTLP}CERTIFICATE": str(ours.ca),
        f"{OTLP}CLIENT_KEY": str(caller.key),
        f"{OTLP}CLIENT_CERTIFICATE": str(caller.cert),
    }
    with OtlpHttpReceiver(tls=ours.server(), callers_ca=str(ours.ca)) as receiver:
        totals, _ = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint, **said})
        said[f"{OTLP}CERTIFICATE"] = str(other.ca)
        refused, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint, **said})
    assert totals == {"exported": 1}
    assert refused == {"dropped_export_failed": 1}
    assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["reason"]


@pytest.mark.parametrize("large", [[3], [0, 1, 2, 3, 4, 5, 6]])
def test_what_is_refused_as_too_large_goes_in_halves(
    large: list[int], environ: pytest.MonkeyPatch
) -> None:
    spans = [span(str(at), 200_000 if at in large else 10) for at in range(9)]
    with OtlpHttpReceiver(body_bytes_max=100_000) as receiver:
        totals, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint}, *spans)
    assert [each.name for each in receiver.spans] == [str(at) for at in range(9) if at not in large]
    assert totals == {"exported": 9 - len(large), "dropped_too_large": len(large)}
    assert [each["event"] for each in logs] == ["span_too_large"]


def test_a_collector_that_says_too_large_by_400_is_understood_too(
    environ: pytest.MonkeyPatch,
) -> None:
    words = Status(code=3, message="http: request body too large").SerializeToString()
    too_large = HttpAnswer(400, words, {"content-type": "application/x-protobuf"})
    with OtlpHttpReceiver(too_large) as receiver:
        totals, logs = sent(
            environ, {f"{OTLP}ENDPOINT": receiver.endpoint}, *(span(each) for each in "abcd")
        )
    assert (totals, len(receiver.requests), logs) == ({"exported": 4}, 3, [])


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_collector_that_is_throttling_is_asked_again(
    code: int, environ: pytest.MonkeyPatch
) -> None:
    with OtlpHttpReceiver(HttpAnswer(code, headers={"retry-after": "0"})) as receiver:
        totals, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint})
    assert (totals, len(receiver.requests), logs) == ({"exported": 1}, 2, [])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HttpAnswer(401, b"invalid\nAPI key"), "HTTP 401 Unauthorized: invalid API key"),
        (HttpAnswer(404), "HTTP 404 Not Found"),
        (HttpAnswer(400, b"\xff", {"content-type": "application/x-protobuf"}), "HTTP 400"),
        (
            HttpAnswer(301, headers={"location": "https://elsewhere/v1/traces"}),
            "HTTP 301 Moved Permanently: moved to https://elsewhere/v1/traces",
        ),
    ],
    ids=["token", "path", "unreadable", "moved"],
)
def test_a_refusal_is_told_with_what_it_says_and_is_not_sent_again(
    answer: HttpAnswer, reason: str, environ: pytest.MonkeyPatch
) -> None:
    with OtlpHttpReceiver(answer) as receiver:
        totals, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint})
    assert (totals, len(receiver.requests)) == ({"dropped_export_failed": 1}, 1)
    (line,) = logs
    assert line["event"] == "spans_not_exported"
    assert reason in line["reason"]


def test_a_collector_that_is_gone_or_stays_busy_is_told_with_its_reason(
    environ: pytest.MonkeyPatch,
) -> None:
    totals, logs = sent(environ, {f"{OTLP}ENDPOINT": f"http://{closed_port()}"})
    assert totals == {"dropped_export_failed": 1}
    assert "Connection refused" in logs[0]["reason"]
    with OtlpHttpReceiver(*[HttpAnswer(503)] * 20) as receiver:
        totals, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint})
    assert totals == {"dropped_export_failed": 1}
    assert "Service Unavailable" in logs[0]["reason"]


def test_a_collector_that_says_later_than_anyone_waits_is_told_with_its_reason(
    environ: pytest.MonkeyPatch,
) -> None:
    later = HttpAnswer(429, b"quota used up", {"retry-after": "3600"})
    with OtlpHttpReceiver(later) as receiver:
        totals, logs = sent(environ, {f"{OTLP}ENDPOINT": receiver.endpoint})
    assert (totals, len(receiver.requests)) == ({"dropped_export_failed": 1}, 1)
    assert logs[0]["reason"] == "HTTP 429 Too Many Requests: quota used up"

"""OTEL_* variables: what they set, and the one line that is said of an odd one."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.span_export import exporter_for
from coalmine.span_settings import (
    BatchSettings,
    batch_settings,
    check_otlp,
    endpoint_of,
    means_tls_unsaid,
)

OTLP = "OTEL_EXPORTER_OTLP_"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


def test_without_variables_batches_are_as_documented() -> None:
    assert batch_settings({}) == BatchSettings(16_384, 128, 1_000)


def test_the_variables_of_the_batch_processor_are_honoured() -> None:
    environ = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": " 16 ",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
    }
    assert batch_settings(environ) == BatchSettings(100, 16, 250)


def test_a_short_queue_alone_makes_the_batches_as_short() -> None:
    assert batch_settings({"OTEL_BSP_MAX_QUEUE_SIZE": "8"}) == BatchSettings(8, 8, 1_000)


@pytest.mark.parametrize("value", ["5s", "1e3", "-1", "0", "1.5", "٣", "0x10", "∞", "9" * 5_000])
@pytest.mark.parametrize(
    "name",
    ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"],
)
def test_what_is_no_whole_number_is_named(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"^{name}: expected a whole number .* got '{value}'$"):
        batch_settings({name: value})


def test_a_batch_is_no_larger_than_the_queue() -> None:
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9"}
    with pytest.raises(StartError, match=r"BATCH_SIZE: expected at most .*, 8, got 9"):
        batch_settings(environ)


@pytest.mark.parametrize("prefix", [OTLP, TRACES])
@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("TIMEOUT", "10s", "expected a number of seconds above 0, got '10s'"),
        ("TIMEOUT", "-1", "expected a number of seconds above 0, got '-1'"),
        ("TIMEOUT", "nan", "expected a number of seconds above 0, got 'nan'"),
        (
            "ENDPOINT",
            "http://[::1",
            "expected an endpoint such as http://HOST:4317, got 'http://[::1'",
        ),
        (
            "ENDPOINT",
            "http://h:x",
            "expected an endpoint such as http://HOST:4317, got 'http://h:x'",
        ),
        ("COMPRESSION", "zstd", "expected gzip or none, got 'zstd'"),
        ("INSECURE", "yes", "expected true or false, got 'yes'"),
        ("CERTIFICATE", "/nowhere/ca.pem", "/nowhere/ca.pem: no such file or directory"),
        ("CLIENT_KEY", "/", "/: is a directory"),
        ("CLIENT_CERTIFICATE", "/nowhere/c.pem", "/nowhere/c.pem: no such file or directory"),
    ],
)
def test_what_the_exporter_cannot_read_is_one_line_with_its_name(
    prefix: str, kind: str, value: str, told: str
) -> None:
    environ = {f"{OTLP}ENDPOINT": "http://127.0.0.1:1", f"{prefix}{kind}": value}
    with pytest.raises(StartError) as raised:
        exporter_for(None, environ)
    assert str(raised.value) == f"{prefix}{kind}: {told}"


def test_what_can_be_read_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"-")
    check_otlp(
        {
            f"{OTLP}TIMEOUT": "2.5",
            f"{TRACES}COMPRESSION": "GZIP",
            f"{OTLP}COMPRESSION": "none",
            f"{OTLP}INSECURE": "True",
            f"{OTLP}CERTIFICATE": str(file),
            f"{TRACES}TIMEOUT": "",
        }
    )


def test_the_endpoint_for_traces_comes_first() -> None:
    assert endpoint_of({f"{OTLP}ENDPOINT": "a", f"{TRACES}ENDPOINT": "b"}) == "b"
    assert endpoint_of({f"{TRACES}ENDPOINT": ""}) == ""


@pytest.mark.parametrize(
    ("endpoint", "insecure", "tls"),
    [
        ("127.0.0.1:4317", "", True),
        ("127.0.0.1:4317", "false", True),
        ("127.0.0.1:4317", "true", False),
        ("http://127.0.0.1:4317", "", False),
        ("https://127.0.0.1:4317", "", False),
        ("", "", False),
    ],
)
def test_an_endpoint_without_a_scheme_means_tls(endpoint: str, insecure: str, tls: bool) -> None:
    environ = {f"{OTLP}ENDPOINT": endpoint, f"{OTLP}INSECURE": insecure}
    assert means_tls_unsaid(environ) is tls


def test_an_endpoint_without_a_scheme_is_said_to_mean_tls() -> None:
    with capture_logs() as logs:
        exporter = exporter_for(None, {f"{OTLP}ENDPOINT": "127.0.0.1:1"})
    assert exporter is not None
    exporter.shutdown()
    assert [(each["event"], each["without_tls"]) for each in logs] == [
        ("otlp_endpoint_means_tls", "http://127.0.0.1:1")
    ]


@pytest.mark.parametrize("prefix", [OTLP, TRACES])
@pytest.mark.parametrize("kind", ["TIMEOUT", "INSECURE", "COMPRESSION", "CERTIFICATE", "HEADERS"])
def test_a_variable_that_is_empty_is_none(
    prefix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{OTLP}ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(f"{prefix}{kind}", "")

    exporter = exporter_for(None)

    assert exporter is not None
    exporter.shutdown()
    assert f"{prefix}{kind}" not in os.environ

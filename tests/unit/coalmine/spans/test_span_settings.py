"""OTEL_* variables: what they set, and the one line that is said of an odd one."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.spans.span_exporter import open_exporters
from coalmine.spans.span_settings import (
    BatchSettings,
    batch_settings,
    check_otlp,
    check_resource,
    credential_files_of,
    endpoint_of,
    exporters_of,
    leaves_tls_open,
    protocol_of,
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
        ("ENDPOINT", "http://", "expected an endpoint such as http://HOST:4317, got 'http://'"),
        (
            "ENDPOINT",
            "https://:1",
            "expected an endpoint such as http://HOST:4317, got 'https://:1'",
        ),
        ("PROTOCOL", "http/json", "expected grpc or http/protobuf, got 'http/json'"),
        ("HEADERS", "secret", "expected NAME=VALUE,NAME=VALUE"),
        ("HEADERS", "a=1,secret", "expected NAME=VALUE,NAME=VALUE"),
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
        open_exporters(None, environ)
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
        ("http://127.0.0.1:4317", "false", False),
        ("https://127.0.0.1:4317", "", False),
        ("grpc://127.0.0.1:4317", "", True),
        ("grpc://127.0.0.1:4317", "true", False),
        ("", "", False),
    ],
)
def test_an_endpoint_without_a_scheme_means_tls(endpoint: str, insecure: str, tls: bool) -> None:
    environ = {f"{OTLP}ENDPOINT": endpoint, f"{OTLP}INSECURE": insecure}
    assert leaves_tls_open(environ) is tls


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "grpc://127.0.0.1:1"])
def test_an_endpoint_without_a_scheme_is_said_to_mean_tls(endpoint: str) -> None:
    with capture_logs() as logs:
        (exporter,) = open_exporters(None, {f"{OTLP}ENDPOINT": endpoint})
    exporter.shutdown()
    assert [(each["event"], each["without_tls"]) for each in logs] == [
        ("otlp_endpoint_means_tls", "http://127.0.0.1:1")
    ]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "localhost:4318", "grpc://h:4318"])
def test_by_http_an_endpoint_is_a_url(endpoint: str) -> None:
    environ = {f"{OTLP}ENDPOINT": endpoint, f"{OTLP}PROTOCOL": "http/protobuf"}
    expected = f"^{OTLP}ENDPOINT: expected a URL such as http://HOST:4318, got '{endpoint}'$"
    with pytest.raises(StartError, match=expected):
        check_otlp(environ)


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        ({}, "grpc"),
        ({f"{OTLP}PROTOCOL": "http/protobuf"}, "http/protobuf"),
        ({f"{OTLP}PROTOCOL": "http/json", f"{TRACES}PROTOCOL": "grpc"}, "grpc"),
        ({f"{OTLP}PROTOCOL": "grpc", f"{TRACES}PROTOCOL": "http/protobuf"}, "http/protobuf"),
        ({f"{OTLP}PROTOCOL": ""}, "grpc"),
    ],
)
def test_the_protocol_for_traces_comes_first(said: dict[str, str], protocol: str) -> None:
    assert protocol_of(said) == protocol


@pytest.mark.parametrize("files", [["CLIENT_KEY"], ["CLIENT_CERTIFICATE"]])
def test_a_key_needs_its_certificate(files: list[str], tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.write_text("-")
    with pytest.raises(StartError, match=r"CLIENT_KEY and .*CLIENT_CERTIFICATE: expected both"):
        check_otlp({f"{OTLP}{each}": str(file) for each in files})


def test_files_for_traces_come_first_each_by_itself() -> None:
    said = {f"{OTLP}CERTIFICATE": "ca", f"{TRACES}CLIENT_KEY": "key", f"{OTLP}CLIENT_KEY": "no"}
    assert credential_files_of(said) == ("ca", "key", "")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", ["otlp"]),
        ("otlp", ["otlp"]),
        ("none", []),
        ("otlp_json_file", ["otlp_json_file"]),
        (" otlp , otlp_json_file ", ["otlp", "otlp_json_file"]),
    ],
)
def test_exporters_are_those_that_are_named(value: str, names: list[str]) -> None:
    environ = {f"{OTLP}ENDPOINT": "http://h:1", "OTEL_TRACES_EXPORTER": value}
    assert exporters_of(environ) == names


@pytest.mark.parametrize("value", ["", "otlp", "otlp,otlp_json_file"])
def test_without_an_endpoint_there_are_files_alone(value: str) -> None:
    assert exporters_of({"OTEL_TRACES_EXPORTER": value}) == ["otlp_json_file"]


def test_an_exporter_that_there_isnt_is_named() -> None:
    with pytest.raises(StartError, match=r"^OTEL_TRACES_EXPORTER: expected otlp, .* got 'zipkin'"):
        exporters_of({"OTEL_TRACES_EXPORTER": "otlp,zipkin"})


@pytest.mark.parametrize("prefix", [OTLP, TRACES])
@pytest.mark.parametrize("kind", ["TIMEOUT", "INSECURE", "COMPRESSION", "CERTIFICATE", "HEADERS"])
def test_a_variable_that_is_empty_is_none(
    prefix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{OTLP}ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(f"{prefix}{kind}", "")

    (exporter,) = open_exporters(None)

    exporter.shutdown()
    assert f"{prefix}{kind}" not in os.environ


@pytest.mark.parametrize("value", ["a,=b", "a", "=b", " =b", "a=1,", "a=1,,b=2", " "])
def test_attributes_of_the_resource_that_cannot_be_read_are_named(value: str) -> None:
    told = f"^OTEL_RESOURCE_ATTRIBUTES: expected NAME=VALUE,NAME=VALUE, got '{value}'$"
    with pytest.raises(StartError, match=told):
        check_resource({"OTEL_RESOURCE_ATTRIBUTES": value})


@pytest.mark.parametrize("value", ["", "a=", "a=b=c", " a = 1 , b=2"])
def test_attributes_of_the_resource_that_can_be_read_are_taken(value: str) -> None:
    check_resource({"OTEL_RESOURCE_ATTRIBUTES": value})
    check_resource({})

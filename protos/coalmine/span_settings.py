"""What the OTEL_* variables say of the export of spans, checked before anything is exported.

The SDK would end with a traceback, or take a default in silence, for a value that it can't read.
Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/; times of
OTEL_EXPORTER_OTLP_TIMEOUT are seconds, as Python's exporter takes them. What is empty isn't set.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc

from coalmine.errors import StartError, reason_of

_OTLP: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_WHOLE_MAX: Final = 2**31 - 1
_COMPRESSIONS: Final = {"gzip": grpc.Compression.Gzip, "none": grpc.Compression.NoCompression}


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How many spans wait, how many go in one request, and how long the first of them waits."""

    queue_spans_max: int = 16_384
    batch_spans_max: int = 128
    delay_ms: int = 1_000


def batch_settings(environ: Mapping[str, str]) -> BatchSettings:
    """Return what the OTEL_BSP_* variables say. Raises StartError for one that can't be read."""
    default = BatchSettings()
    queue = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", default.queue_spans_max)
    name = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    batch = _whole(environ, name, min(default.batch_spans_max, queue))
    if batch > queue:
        raise StartError(f"{name}: expected at most OTEL_BSP_MAX_QUEUE_SIZE, {queue}, got {batch}")
    return BatchSettings(
        queue, batch, _whole(environ, "OTEL_BSP_SCHEDULE_DELAY", default.delay_ms, " (ms)")
    )


def endpoint_of(environ: Mapping[str, str]) -> str:
    """Return the collector's endpoint; "" where there is none."""
    return next((value for _, value in _given(environ, "ENDPOINT")), "")


def means_tls_unsaid(environ: Mapping[str, str]) -> bool:
    """Return whether the endpoint has no scheme, and nothing else says that it is without TLS."""
    insecure = any(value.strip().lower() == "true" for _, value in _given(environ, "INSECURE"))
    endpoint = endpoint_of(environ)
    return bool(endpoint) and "://" not in endpoint and not insecure


def drop_empty(environ: MutableMapping[str, str]) -> None:
    """Let variables of the exporter that are empty be none, which it reads as values."""
    for name in [each for each, value in environ.items() if not value]:
        if name.startswith(_OTLP):
            del environ[name]


def check_otlp(environ: Mapping[str, str]) -> None:
    """Raise StartError for a variable that the exporter couldn't read, with its name."""
    _check_endpoint(environ)
    for name, value in _given(environ, "TIMEOUT"):
        if not 0.0 < _number(value) < inf:
            raise StartError(f"{name}: expected a number of seconds above 0, got '{value}'")
    for name, value in _given(environ, "COMPRESSION"):
        if value.strip().lower() not in _COMPRESSIONS:
            raise StartError(f"{name}: expected {' or '.join(_COMPRESSIONS)}, got '{value}'")
    for name, value in _given(environ, "INSECURE"):
        if value.strip().lower() not in {"true", "false"}:
            raise StartError(f"{name}: expected true or false, got '{value}'")
    for name, value in (each for kind in _FILES for each in _given(environ, kind)):
        _check_file(name, Path(value))


def compression_of(environ: Mapping[str, str]) -> grpc.Compression:
    """Return how requests are compressed: not at all, unless it is said."""
    wanted = next((value for _, value in _given(environ, "COMPRESSION")), "none")
    return _COMPRESSIONS[wanted.strip().lower()]


def _given(environ: Mapping[str, str], kind: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of a kind that are set, those for traces alone first."""
    for name in (f"{prefix}{kind}" for prefix in _OTLP):
        if environ.get(name):
            yield name, environ[name]


def _check_endpoint(environ: Mapping[str, str]) -> None:
    for name, value in _given(environ, "ENDPOINT"):
        try:
            urlsplit(value).port  # noqa: B018 - read where it is asked for
        except ValueError:
            raise StartError(
                f"{name}: expected an endpoint such as http://HOST:4317, got '{value}'"
            ) from None


def _check_file(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise StartError(f"{name}: {path}: {reason_of(error)}") from None


def _whole(environ: Mapping[str, str], name: str, default: int, unit: str = "") -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and 0 < int(value[:20]) <= _WHOLE_MAX):
        raise StartError(f"{name}: expected a whole number above 0{unit}, got '{value}'")
    return int(value)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0

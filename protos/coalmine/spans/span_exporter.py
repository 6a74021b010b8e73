"""Who exports spans: OpenTelemetry's exporters by gRPC or HTTP, and files for Jaeger."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, cast

import grpc
import structlog
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter

from coalmine.errors import StartError, reason_of
from coalmine.process.private_folder import open_private
from coalmine.spans.span_files import RotatingFile
from coalmine.spans.span_settings import (
    FILES,
    HTTP,
    OTLP,
    check_otlp,
    compression_of,
    credential_files_of,
    drop_empty,
    endpoint_of,
    exporters_of,
    is_insecure,
    leaves_tls_open,
    protocol_of,
)

_log = structlog.get_logger(__name__)

# What the exporter itself tries again. A request that is too large never gets smaller by waiting.
_AGAIN: Final = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
_COMPRESSIONS: Final = {"gzip": grpc.Compression.Gzip, "none": grpc.Compression.NoCompression}


def open_exporters(
    folder: Path | None, environ: Mapping[str, str] = os.environ, *, at_once: bool = True
) -> list[SpanExporter]:
    """Return the exporters that the OTEL_* variables ask for; by default, files in `folder`.

    None at all mean that nobody reads spans: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none, or
    neither an endpoint nor a folder. With OTEL_TRACES_EXPORTER=otlp,otlp_json_file there are both.
    Raises StartError for a variable that can't be read, and for a folder that can't be written; if
    not `at_once`, that is tried again with each batch of spans instead.
    """
    kinds = exporters_of(environ)
    found: list[SpanExporter] = []
    if OTLP in kinds:
        found.append(_otlp_exporter(environ))
    if FILES in kinds and folder is not None:
        found.append(_file_exporter(folder, at_once=at_once))
    return found


def _file_exporter(folder: Path, *, at_once: bool) -> SpanExporter:
    file = RotatingFile(folder)
    try:
        open_private(folder, ["traces-*.jsonl"])
        file.open()
    except OSError as error:
        if at_once:
            raise StartError(f"trace folder {folder}: {reason_of(error)}") from None
    return FileSpanExporter(stream=cast("IO[str]", file))


def _otlp_exporter(environ: Mapping[str, str]) -> SpanExporter:
    check_otlp(environ)
    drop_empty(os.environ)  # where the exporters themselves look
    if protocol_of(environ) == HTTP:
        from coalmine.spans.span_http import http_exporter  # noqa: PLC0415 - half a second for who needs it

        return http_exporter(environ)
    if leaves_tls_open(environ):
        endpoint = endpoint_of(environ)
        without_tls = f"http://{endpoint.rpartition('://')[2].lstrip('/')}"
        _log.warning("otlp_endpoint_means_tls", endpoint=endpoint, without_tls=without_tls)
    return OTLPSpanExporter(
        endpoint_of(environ),
        insecure=is_insecure(environ),
        credentials=_channel_credentials(environ),
        retryable_error_codes=_AGAIN,
        compression=_COMPRESSIONS[compression_of(environ)],
    )


def _channel_credentials(environ: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    """Return what the files of certificates make; None where there are none, or no TLS."""
    files = credential_files_of(environ)
    if is_insecure(environ) or not any(files):
        return None
    return grpc.ssl_channel_credentials(
        *(Path(each).read_bytes() if each else None for each in files)
    )

"""Where finished spans go: a collector, files for Jaeger, or nowhere; bounded and counted."""

import io
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, cast

import grpc
import structlog
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from coalmine.errors import StartError, reason_of
from coalmine.export_outage import ExportOutage
from coalmine.private_folder import open_private
from coalmine.span_settings import (
    BatchSettings,
    batch_settings,
    check_otlp,
    compression_of,
    drop_empty,
    endpoint_of,
    means_tls_unsaid,
)
from coalmine.span_size import parts_of, size_of

_log = structlog.get_logger(__name__)

# A collector takes 4 MiB unless it is told otherwise; sizes here are estimates.
_REQUEST_BYTES_MAX: Final = 3 * 1024 * 1024
_QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
# Of what becomes too large in one place or another, as gRPC in C, Go, Java and Rust word it.
_TOO_LARGE: Final = ("larger than max", "exceeds maximum", "too large")
# What the exporter itself tries again. A request that is too large never gets smaller by waiting.
_AGAIN: Final = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
# A collector that is throttling is asked again after so long.
_AGAIN_AFTER_S: Final = (1.0, 2.0, 4.0)
# How long a process exports at its end where it has no more time, or the collector takes nothing.
ENDS_S: Final = 2.0
_LOOK_S: Final = 0.05
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_FILES_MAX: Final = 8


def resource(service: str, environ: Mapping[str, str] = os.environ) -> Resource:
    """Return the resource of this process's spans; OTEL_SERVICE_NAME overrules `service`."""
    return Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or service})


def exporter_for(
    folder: Path | None, environ: Mapping[str, str] = os.environ, *, at_once: bool = True
) -> SpanExporter | None:
    """Return the exporter that the OTEL_* variables ask for; by default, files in `folder`.

    None means that nobody reads spans: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none, or neither an
    endpoint nor a folder. Raises StartError for a variable that can't be read, and for a folder
    that can't be written; if not `at_once`, that is tried again with each batch of spans instead.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return None
    if endpoint_of(environ):
        return _otlp_exporter(environ)
    if folder is None:
        return None
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
    if means_tls_unsaid(environ):
        endpoint = endpoint_of(environ)
        _log.warning("otlp_endpoint_means_tls", endpoint=endpoint, without_tls=f"http://{endpoint}")
    drop_empty(os.environ)  # where the exporter itself looks
    return OTLPSpanExporter(
        endpoint_of(environ),
        retryable_error_codes=_AGAIN,
        compression=compression_of(environ),
    )


class CountedSpans(SpanProcessor):
    """A batch processor with bounds that are counted: spans over them, and those not exported.

    The SDK's own processor drops in silence. Thread-safe.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        settings: BatchSettings | None = None,
        *,
        queue_bytes_max: int = _QUEUE_BYTES_MAX,
    ) -> None:
        settings = settings or batch_settings(os.environ)
        self._counting = _CountingExporter(exporter)
        self._queue_spans_max = settings.queue_spans_max
        self._queue_bytes_max = queue_bytes_max
        self._lock = threading.Lock()
        self._accepted, self._accepted_bytes = 0, 0
        self._refused = 0
        self._batches = BatchSpanProcessor(
            self._counting,
            max_queue_size=settings.queue_spans_max,
            max_export_batch_size=settings.batch_spans_max,
            schedule_delay_millis=settings.delay_ms,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a finished span, or count it as dropped; one that isn't sampled is nobody's."""
        if not (span.context and span.context.trace_flags.sampled):
            return  # the SDK's processor would not queue it, and it would be waited for
        size = size_of(span)
        with self._lock:
            if not self._has_room(size):
                self._refused += 1
                return
            self._accepted += 1
            self._accepted_bytes += size
        self._batches.on_end(span)

    def _has_room(self, size: int) -> bool:
        waiting = self._accepted - self._counting.taken
        waiting_bytes = self._accepted_bytes - self._counting.taken_bytes
        return waiting < self._queue_spans_max and waiting_bytes + size <= self._queue_bytes_max

    def totals(self) -> dict[str, int]:
        """Return how many spans were exported, and how many dropped, by reason."""
        results = self._counting.results
        return {
            "exported": results["exported"],
            "dropped_queue_full": self._refused,
            "dropped_export_failed": results["failed"],
            "dropped_too_large": results["too_large"],
        }

    def trouble(self) -> str:
        """Return why spans aren't exported, in one line; "" where they are."""
        return self._counting.outage.trouble

    def shutdown(self, timeout_s: float = ENDS_S) -> None:
        """Export what is queued, for `timeout_s` at most, and log how many spans are given up.

        Where the collector takes nothing, two seconds are enough: it holds up no stop.
        """
        began_s = time.monotonic()
        worker = threading.Thread(target=self._batches.shutdown, daemon=True)
        worker.start()
        worker.join(min(timeout_s, ENDS_S))
        while worker.is_alive() and not self.trouble() and time.monotonic() < began_s + timeout_s:
            worker.join(_LOOK_S)
        self._counting.end()
        self._tell_given_up(time.monotonic() - began_s)

    def _tell_given_up(self, after_s: float) -> None:
        left = self._accepted - sum(self._counting.results.values())
        if left > 0:
            reason = self.trouble() or "the collector was too slow"
            _log.warning("spans_given_up", spans=left, after_s=round(after_s, 1), reason=reason)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is queued; return whether it was done in time."""
        return self._batches.force_flush(timeout_millis)


class _CountingExporter(SpanExporter):
    """Exports in requests that a collector takes, and counts what became of each span."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._ended = threading.Event()
        self._has_told_too_large = False
        self.outage = ExportOutage()
        self.taken, self.taken_bytes = 0, 0
        self.results: Counter[str] = Counter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self.taken_bytes += sum(map(size_of, spans))
        for part in parts_of(spans, _REQUEST_BYTES_MAX):
            self._export_part(part)
        return SpanExportResult.SUCCESS  # nobody asks: it is counted here

    def end(self) -> None:
        """Try nothing again from now on."""
        self._ended.set()

    def _export_part(self, part: Sequence[ReadableSpan]) -> None:
        """Export, in halves what is refused as too large: the others are none the worse for it."""
        result = self._exported(part)
        for wait_s in _AGAIN_AFTER_S:
            if result != "throttled" or self._ended.wait(wait_s):
                break
            result = self._exported(part)
        if result == "too_large" and len(part) > 1:
            half = len(part) // 2
            self._export_part(part[:half])
            self._export_part(part[half:])
            return
        if result == "too_large":
            self._tell_too_large(part[0])
        self.results["failed" if result == "throttled" else result] += len(part)
        # What refuses one span takes others.
        self.outage.note(is_over=result in {"exported", "too_large"})

    def _exported(self, part: Sequence[ReadableSpan]) -> str:
        """Return exported, too_large, throttled or failed."""
        try:
            with self.outage.told_here():
                if self._exporter.export(part) is SpanExportResult.SUCCESS:
                    return "exported"
        except Exception as error:  # noqa: BLE001 - the SDK would print its traceback for each batch
            self.outage.reason = f"{type(error).__name__}: {error}"
        return _refusal(self.outage.reason)

    def _tell_too_large(self, span: ReadableSpan) -> None:
        if not self._has_told_too_large:  # once: it is counted, and the next ones are alike
            _log.warning("span_too_large", name=span.name, reason=self.outage.reason)
        self._has_told_too_large = True

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _refusal(reason: str) -> str:
    """Return what a failed export means, by what the exporter logged of it."""
    if not any(code in reason for code in ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")):
        return "failed"
    is_too_large = any(words in reason.lower() for words in _TOO_LARGE)
    return "too_large" if is_too_large else "throttled"


class RotatingFile(io.TextIOBase):
    """A text stream over `traces-NNNNNN.jsonl` files; the oldest go when there are too many.

    Rotates only between writes, so every file holds whole lines. The first one is opened by `open`,
    or by the first lines.
    """

    def __init__(
        self, folder: Path, *, bytes_max: int = _FILE_BYTES_MAX, files_max: int = _FILES_MAX
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._number = max(map(_number, folder.glob("traces-*.jsonl")), default=0)
        self._file: IO[str] | None = None

    def open(self) -> None:
        """Begin the first file now. Raises OSError."""
        self._file = self._file or self._next()

    def write(self, text: str) -> int:
        """Write whole lines; begin a new file first where they no longer fit, or it was deleted."""
        file = self._file
        if file is None or self._is_full(file, text) or not os.fstat(file.fileno()).st_nlink:
            # Open the next one first: where that fails, it can be tried again with the next lines.
            following = self._next()
            self.close()
            self._file = file = following
        return file.write(text)

    def _is_full(self, file: IO[str], text: str) -> bool:
        return 0 < file.tell() > self._bytes_max - len(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the newest file."""
        if self._file is not None:
            self._file.close()

    @property
    def closed(self) -> bool:
        """Whether the stream was closed."""
        return self._file is not None and self._file.closed

    def _next(self) -> IO[str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self._number + 1
        opened = (self._folder / f"traces-{number:06d}.jsonl").open("a", encoding="utf-8")
        self._number = number
        for old in self._folder.glob("traces-*.jsonl"):
            if 0 < _number(old) <= number - self._files_max:
                old.unlink(missing_ok=True)
        return opened


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("traces-")
    return int(digits) if digits.isdigit() else 0

"""Where finished spans go: a collector, files for Jaeger, or nowhere; bounded and counted."""

import io
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, cast

from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from coalmine.errors import StartError, reason_of
from coalmine.export_outage import ExportOutage
from coalmine.private_folder import open_private

_QUEUE_SPANS_MAX: Final = 16_384
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_BATCH_SPANS_MAX: Final = 128
_FILES_MAX: Final = 8
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def resource(service: str, environ: Mapping[str, str] = os.environ) -> Resource:
    """Return the resource of this process's spans; OTEL_SERVICE_NAME overrules `service`."""
    return Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or service})


def exporter_for(
    folder: Path | None, environ: Mapping[str, str] = os.environ, *, at_once: bool = True
) -> SpanExporter | None:
    """Return the exporter that the OTEL_* variables ask for; by default, files in `folder`.

    None means that nobody reads spans: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none, or neither an
    endpoint nor a folder. Raises StartError where the folder can't be written; if not `at_once`,
    it is tried again with each batch of spans instead.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return None
    if any(environ.get(name) for name in _ENDPOINTS):
        return OTLPSpanExporter()
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


class CountedSpans(SpanProcessor):
    """A batch processor with a bound that is counted: spans over it, and those not exported.

    The SDK's own processor drops in silence. Thread-safe.
    """

    def __init__(self, exporter: SpanExporter, *, queue_spans_max: int = _QUEUE_SPANS_MAX) -> None:
        self._counting = _CountingExporter(exporter)
        self._queue_spans_max = queue_spans_max
        self._lock = threading.Lock()
        self._accepted = 0
        self._refused = 0
        self._batches = BatchSpanProcessor(
            self._counting,
            max_queue_size=queue_spans_max,
            max_export_batch_size=min(_BATCH_SPANS_MAX, queue_spans_max),
            schedule_delay_millis=_delay_ms(),
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a finished span, or count it as dropped; one that isn't sampled is nobody's."""
        if not (span.context and span.context.trace_flags.sampled):
            return  # the SDK's processor would not queue it, and it would be waited for
        with self._lock:
            if self._accepted - self._counting.taken >= self._queue_spans_max:
                self._refused += 1
                return
            self._accepted += 1
        self._batches.on_end(span)

    def totals(self) -> dict[str, int]:
        """Return how many spans were exported, and how many dropped, by reason."""
        return {
            "exported": self._counting.results[SpanExportResult.SUCCESS],
            "dropped_queue_full": self._refused,
            "dropped_export_failed": self._counting.results[SpanExportResult.FAILURE],
        }

    def trouble(self) -> str:
        """Return why spans aren't exported, in one line; "" where they are."""
        return self._counting.outage.trouble

    def shutdown(self, timeout_s: float = 2.0) -> None:
        """Export what is queued, for `timeout_s` at most: a dead collector holds up no stop."""
        worker = threading.Thread(target=self._batches.shutdown, daemon=True)
        worker.start()
        worker.join(timeout_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is queued; return whether it was done in time."""
        return self._batches.force_flush(timeout_millis)


class _CountingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.outage = ExportOutage()
        self.taken = 0
        self.results: Counter[SpanExportResult] = Counter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            with self.outage.told_here():
                result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the SDK would print its traceback for each batch
            self.outage.reason = f"{type(error).__name__}: {error}"
        finally:
            self.results[result] += len(spans)
        self.outage.note(is_over=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _delay_ms() -> float:
    return float(os.environ.get("OTEL_BSP_SCHEDULE_DELAY") or 1_000)


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

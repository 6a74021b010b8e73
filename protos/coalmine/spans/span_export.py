"""The export of finished spans: bounded, cut to what a collector takes, and counted."""

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from coalmine.spans.export_outage import ExportOutage
from coalmine.spans.span_exporter import open_exporters
from coalmine.spans.span_settings import BatchSettings, batch_settings
from coalmine.spans.span_size import parts_of, size_of

_log = structlog.get_logger(__name__)

# A collector takes 4 MiB unless it is told otherwise; sizes here are estimates.
_REQUEST_BYTES_MAX: Final = 3 * 1024 * 1024
_QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
# Of what becomes too large in one place or another, as gRPC in C, Go, Java and Rust word it.
_TOO_LARGE: Final = ("larger than max", "exceeds maximum", "too large")
_TOO_LARGE_HTTP: Final = "HTTP 413"
# A bound was reached: of the request's size, or of how many there may be.
_OVER_GRPC: Final = ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")
# As Go's collector answers a request whose body is too large.
_OVER_HTTP: Final = "HTTP 400"
# A collector that is throttling is asked again after so long.
_AGAIN_AFTER_S: Final = (1.0, 2.0, 4.0)
# How long a process exports at its end where it has no more time, or the collector takes nothing.
ENDS_S: Final = 2.0
_LOOK_S: Final = 0.05


class CountedSpans(SpanProcessor):
    """A batch processor that counts the spans that it drops or can't export. Thread-safe.

    The SDK's own processor drops in silence.
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
        """Queue a finished span, or count it as dropped. One that isn't sampled is ignored."""
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

        During an outage two seconds are the limit, so that a collector delays no stop.
        """
        began_s = time.monotonic()
        worker = threading.Thread(target=self._batches.shutdown, daemon=True)
        worker.start()
        worker.join(min(timeout_s, ENDS_S))
        while worker.is_alive() and not self.trouble() and time.monotonic() < began_s + timeout_s:
            worker.join(_LOOK_S)
        self._counting.end()
        self._log_given_up(time.monotonic() - began_s)

    def _log_given_up(self, after_s: float) -> None:
        left = self._accepted - sum(self._counting.results.values())
        if left > 0:
            # Of a first export, whose attempts aren't over, there is no trouble yet.
            reason = self.trouble() or self._counting.outage.reason or "the collector was too slow"
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
        """Export the spans. A part that is refused as too large is halved, and tried again."""
        result = self._export_request(part)
        for wait_s in _AGAIN_AFTER_S:
            if result != "throttled" or self._ended.wait(wait_s):
                break
            result = self._export_request(part)
        if result == "too_large" and len(part) > 1:
            half = len(part) // 2
            self._export_part(part[:half])
            self._export_part(part[half:])
            return
        if result == "too_large":
            self._log_too_large(part[0])
        self.results["failed" if result == "throttled" else result] += len(part)
        # What refuses one span takes others.
        self.outage.log_change(is_over=result in {"exported", "too_large"})

    def _export_request(self, part: Sequence[ReadableSpan]) -> str:
        """Return exported, too_large, throttled or failed."""
        try:
            with self.outage.capturing_reason():
                if self._exporter.export(part) is SpanExportResult.SUCCESS:
                    return "exported"
        except Exception as error:  # noqa: BLE001 - the SDK would print its traceback for each batch
            self.outage.reason = f"{type(error).__name__}: {error}"
        return _result_of_failure(self.outage.reason)

    def _log_too_large(self, span: ReadableSpan) -> None:
        if not self._has_told_too_large:  # once: it is counted, and the next ones are alike
            _log.warning("span_too_large", name=span.name, reason=self.outage.reason)
        self._has_told_too_large = True

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _result_of_failure(reason: str) -> str:
    """Return what a failed export means, by what the exporter logged of it."""
    if _TOO_LARGE_HTTP in reason:
        return "too_large"
    is_over_grpc = any(code in reason for code in _OVER_GRPC)
    if is_over_grpc or _OVER_HTTP in reason:
        is_too_large = any(words in reason.lower() for words in _TOO_LARGE)
        if is_too_large:
            return "too_large"
    return "throttled" if is_over_grpc else "failed"


class SpanOutputs(SpanProcessor):
    """All outputs of a process's spans. Each has its own queue, so that none waits for another."""

    def __init__(self, outputs: Sequence[CountedSpans]) -> None:
        self._outputs = outputs

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a finished span to each."""
        for each in self._outputs:
            each.on_end(span)

    def totals(self) -> Mapping[str, int]:
        """Return how many spans were exported, and how many dropped, by reason; of all ways."""
        sums: Counter[str] = Counter()
        for each in self._outputs:
            sums.update(each.totals())
        return sums

    def trouble(self) -> str:
        """Return why spans aren't exported, in one line; "" where they are."""
        return next((told for each in self._outputs if (told := each.trouble())), "")

    def shutdown(self, timeout_s: float = ENDS_S) -> None:
        """Export what is queued, side by side, for `timeout_s` at most."""
        with ThreadPoolExecutor(len(self._outputs)) as threads:
            list(threads.map(lambda each: each.shutdown(timeout_s), self._outputs))


def open_span_outputs(folder: Path | None, *, at_once: bool = True) -> SpanOutputs | None:
    """Return the outputs that the OTEL_* variables name; None: no output. Raises StartError."""
    exporters = open_exporters(folder, at_once=at_once)
    return SpanOutputs([CountedSpans(each) for each in exporters]) if exporters else None

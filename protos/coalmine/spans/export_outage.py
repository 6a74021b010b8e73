"""Outages of the span export: one log line at the beginning, and one at the end."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

# They tell of each batch, the first one with a traceback.
_TELLERS: Final = (
    "opentelemetry.exporter.otlp.json.file.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "coalmine.spans.span_http",
)
# How the one by HTTP says that attempts failed: why, only a warning of an attempt says.
_WITHOUT_REASON: Final = "due to timeout, max retries or shutdown"


class ExportOutage(logging.Filter):
    """Logs once what OpenTelemetry's exporters log of each batch. For one export at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""  # of the export that was last
        self._trouble = ""
        self._is_on = False
        self._thread = 0

    @property
    def trouble(self) -> str:
        """The line for operators; "" while spans are exported."""
        return f"spans are not exported: {' '.join(self._trouble.split())}" if self._is_on else ""

    @contextmanager
    def capturing_reason(self) -> Iterator[None]:
        """Take this thread's log lines of the exporter as the reason, and out of the log."""
        self._thread = threading.get_ident()
        self.reason = ""
        tellers = [logging.getLogger(name) for name in _TELLERS]
        for each in tellers:
            each.filters.insert(0, self)  # the SDK's own filter keeps back what repeats itself
        try:
            yield
        finally:
            for each in tellers:
                each.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes on. Records of other threads do."""
        if record.thread != self._thread or record.levelno < logging.WARNING:
            return True
        # Warnings tell of attempts; the error, which comes last, of how all of them ended.
        message = record.getMessage()
        tells_why = record.levelno >= logging.ERROR and _WITHOUT_REASON not in message
        if tells_why or not self.reason:
            self.reason = message
        return False

    def log_change(self, *, is_over: bool) -> None:
        """Log how the last export ended, if the one before ended otherwise."""
        if is_over and self._is_on:
            _log.info("spans_exported_again")
        if not is_over and not self._is_on:
            _log.error("spans_not_exported", reason=self.reason)
        self._is_on, self._trouble = not is_over, self.reason

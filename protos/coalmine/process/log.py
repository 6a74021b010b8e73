"""The log of a process: lines for people on a terminal, else JSON, on standard error.

structlog is imported where it is used: the client's verbs do without it.
"""

import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

from coalmine.errors import StartError
from coalmine.process.standard_streams import uncaptured_stream

# What gRPC logs, with a traceback, where a caller is gone as its answer is sent.
_GRPC_LOGGER: Final = "grpc._cython.cygrpc"
_CALLER_IS_GONE: Final = "ExecuteBatchError"

# A reader that takes nothing for so long has stopped: lines are lost until it goes on.
_STALLED_MS: Final = 500
# What a pipe takes at once where it takes anything (PIPE_BUF); a character is four bytes at most.
_PIECE_BYTES: Final = 4096
_CHAR_BYTES: Final = 4


def _shared_processors() -> list[Any]:
    import structlog  # noqa: PLC0415 - see above

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error. If that takes nothing, the line is lost.

    A reader that lives but no longer reads, such as a pager or a stopped terminal, would otherwise
    stop the whole process. Once the reader goes on, a line says how many were lost.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self._lost = 0
        self._is_torn = False  # the last line that was begun

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # as logging's own last resort has it
        """Where the next line goes."""
        return uncaptured_stream(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or lose it where nobody reads."""
        try:
            self._write_line(self.format(record), self.stream)
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Be quiet where a reader is gone or a disk full; else complain, as logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _write_line(self, line: str, stream: TextIO) -> None:
        if not _is_writable_within(stream, 0 if self._lost else _STALLED_MS):
            self._lost += 1
            return
        if self._lost:
            self._log_lost_lines()
        for piece in _pieces_of(f"\n{line}\n" if self._is_torn else f"{line}\n"):
            if not _is_writable_within(stream, _STALLED_MS):
                self._lost += 1
                self._is_torn = True
                return
            stream.write(piece)
            stream.flush()
        self._is_torn = False

    def _log_lost_lines(self) -> None:
        import structlog  # noqa: PLC0415 - see above

        lost, self._lost = self._lost, 0
        structlog.get_logger(__name__).warning("log_lines_lost", lines=lost)


def _is_writable_within(stream: TextIO, wait_ms: int) -> bool:
    """Return whether a stream takes a piece, or has an error to tell, within `wait_ms`."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file
        return True
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    return bool(ready.poll(wait_ms))


def _pieces_of(text: str) -> Iterator[str]:
    chars = _PIECE_BYTES if text.isascii() else _PIECE_BYTES // _CHAR_BYTES
    for start in range(0, len(text), chars):
        yield text[start : start + chars]


def configure_logging(service: str) -> None:
    """Log to standard error: for people on a terminal, else one JSON object a line.

    COALMINE_LOG_FORMAT (console, json) and COALMINE_LOG_LEVEL (debug … error) change that.
    Raises StartError for an unknown level.
    """
    import structlog  # noqa: PLC0415 - see above

    level = (os.environ.get("COALMINE_LOG_LEVEL") or "info").upper()
    if level not in logging.getLevelNamesMapping():
        raise StartError(f"COALMINE_LOG_LEVEL: expected debug … error, got '{level.lower()}'")
    structlog.configure(
        processors=[*_shared_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = LogHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared_processors(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(service),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger(_GRPC_LOGGER).addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether a line of gRPC's is about us. Callers that leave must not fill the log."""
    error = record.exc_info and record.exc_info[0]
    is_of_caller = error and error.__name__ == _CALLER_IS_GONE
    return not is_of_caller or logging.getLogger().isEnabledFor(logging.DEBUG)


def _renderers(service: str) -> list[Any]:
    import structlog  # noqa: PLC0415 - see above

    wanted = os.environ.get("COALMINE_LOG_FORMAT") or (
        "console" if uncaptured_stream(sys.stderr).isatty() else "json"
    )
    if wanted == "console":
        # Not rich's: it shows what every variable held, thus callers' data, and takes 20 ms.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]

    def add_service(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"service": service, **event}

    return [structlog.processors.format_exc_info, add_service, structlog.processors.JSONRenderer()]

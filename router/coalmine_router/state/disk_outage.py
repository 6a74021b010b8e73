"""A file that can't be written or read: a line in the log when that begins, one when it is over."""

import os
from pathlib import Path

import structlog

from coalmine.errors import reason_of

_log = structlog.get_logger(__name__)


class DiskOutage:
    """Knows whether one of the router's files is in trouble. Reading it from a thread is safe.

    `began` and `ended` are the events in the log, `what` is what can't be done meanwhile.
    """

    def __init__(self, path: Path, what: str, *, began: str, ended: str) -> None:
        self._path = path
        self._what = what
        self._began = began
        self._ended = ended
        self._reason = ""

    @property
    def trouble(self) -> str:
        """What operators are told, in one line; "" where all is well."""
        return f"{self._path}: {self._what}: {self._reason}" if self._reason else ""

    def note_failure(self, error: object, *, meanwhile: str = "") -> None:
        """Note that it failed, and log that where it went well before: once an outage."""
        said = reason_of(error) if isinstance(error, OSError) else " ".join(str(error).split())
        said += _disk_reason(self._path.parent, said)
        was, self._reason = self._reason, f"{said}; {meanwhile}" if meanwhile else said
        if not was:
            _log.error(self._began, path=str(self._path), error=self._reason)

    def note_success(self) -> None:
        """Note that it went well, and log that where it failed before."""
        was, self._reason = self._reason, ""
        if was:
            _log.info(self._ended, path=str(self._path))


def _disk_reason(folder: Path, said: str) -> str:
    """Return what the disk itself says, where that explains more: SQLite has "disk I/O error"."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    if found.f_flag & os.ST_RDONLY and "read" not in said:
        return " (the disk is read-only)"
    if found.f_bavail == 0 and "full" not in said:
        return " (the disk is full)"
    return ""

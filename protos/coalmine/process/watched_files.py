"""Files that are read again when they change, while the process goes on."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from coalmine.errors import StartError
from coalmine.process.blocking_thread import run_in_thread

_LOOK_S: Final = 1.0

Value = TypeVar("Value")

Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[Value]):
    """A value read from files. If they become wrong, the value stays, and the log has a line.

    Several threads may use it. Raises StartError if the files are wrong from the start.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], Value]) -> None:
        self.files = tuple(files)
        self._read = read
        self._looking = threading.Lock()
        # Before the reading: what is written meanwhile has another stamp, and is read next time.
        self._stamp = stamp_of(self.files)
        self.value = read()

    def refresh(self) -> bool:
        """Read again if a file has changed; return whether there is a new value."""
        with self._looking:
            stamp = stamp_of(self.files)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            try:
                self.value = self._read()
            except StartError as error:
                _log().error("changed_file_refused", reason=str(error), kept="what was read before")
                return False
            _log().info("changed_file_taken", files=[str(each) for each in self.files])
            return True


async def follow(*watched: Watched[Any]) -> None:
    """Check each of them every second, until cancelled."""
    changing = [each for each in watched if each.files]
    while changing:
        await asyncio.sleep(_LOOK_S)
        for each in changing:
            await run_in_thread(each.refresh)


def _log() -> Any:
    import structlog  # noqa: PLC0415 - a caller alone does without it

    return structlog.get_logger(__name__)


def stamp_of(files: Sequence[Path]) -> Stamp:
    """Return a stamp of each file that changes with it; None for a missing file."""
    return tuple(_file_stamp(each) for each in files)


def _file_stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

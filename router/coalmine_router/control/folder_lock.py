"""The state folder, held for one router at a time."""

import fcntl
import os
from pathlib import Path
from typing import Final

from coalmine.errors import StartError, reason_of
from coalmine_router.control.state_file import StateUnusable
from coalmine_router.state.sqlite_file import file_identity
from coalmine_router.state.state_folder import open_state, raise_if_wrong_place

_FILE: Final = "control.lock"


class FolderLock:
    """Holds a folder until it is given back, or its process is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> None:
        """Hold the folder, which is made where it is missing, be it that it was removed since.

        Raises StateUnusable where the disk doesn't let it be held, StartError where another router
        holds it, or where there can't be a folder.
        """
        if self._is_held():
            return
        self.release()
        lock = self._open_file()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StartError(f"state folder {self._folder}: in use by another router") from None
        except OSError as error:
            os.close(lock)
            raise StateUnusable(f"the folder can't be locked: {reason_of(error)}") from None
        self._descriptor = lock

    def release(self) -> None:
        """Let another router use the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_held(self) -> bool:
        if self._descriptor is None:
            return False
        held = os.fstat(self._descriptor)
        return file_identity(self._folder / _FILE) == (held.st_dev, held.st_ino)

    def _open_file(self) -> int:
        path = self._folder / _FILE
        try:
            open_state(self._folder)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise_if_wrong_place(self._folder, error)
            reason = reason_of(error)
        try:  # of a disk that can't be written to, it can be held all the same
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise StateUnusable(f"the folder can't be used: {reason}") from None

"""A model repository on the disk: files are written beside their place, then moved in by one step.

A process that is killed in between leaves a hidden folder. The next one removes it, and servers
ignore it.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from coalmine.errors import StartError
from coalmine_server.file_lock import try_lock

LOCK_FILE: Final = ".coalmine.lock"
_SCRATCH: Final = ".packaging-"
_BUSY: Final = "busy"  # locked while a process writes beside it
_POLL_S: Final = 0.05


@contextmanager
def lock_repository(repository: Path, *, wait_s: float) -> Iterator[None]:
    """Be the only process that changes the repository. Raises StartError after `wait_s`."""
    with (repository / LOCK_FILE).open("a") as file:
        _acquire_lock(file, repository, wait_s)
        yield  # closing the file lets go


def _acquire_lock(file: IO[str], repository: Path, wait_s: float) -> None:
    until_s = time.monotonic() + wait_s
    while not try_lock(file):
        if time.monotonic() >= until_s:
            raise StartError(
                f"{repository}: somebody else has been changing it for {wait_s:g} s "
                f"(holds {LOCK_FILE}); try again"
            )
        time.sleep(_POLL_S)


@contextmanager
def scratch_folder(repository: Path, *, wait_s: float) -> Iterator[Path]:
    """Yield an empty folder beside the models, gone at the end. Raises StartError, OSError."""
    repository.mkdir(parents=True, exist_ok=True)
    with lock_repository(repository, wait_s=wait_s):
        _remove_abandoned(repository)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=repository))
        busy = (folder / _BUSY).open("a")
        try_lock(busy)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        busy.close()


def _remove_abandoned(repository: Path) -> None:
    """Remove the folders of killed processes. Under the lock, no folder is new."""
    for folder in repository.glob(f"{_SCRATCH}*"):
        try:
            with (folder / _BUSY).open("a") as busy:
                is_left = try_lock(busy)
        except OSError:  # of another user, or not ours at all
            continue
        if is_left:
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- files


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into a new folder, down to the disk."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(folder)


def replace_text(path: Path, text: str, *, by_way_of: Path) -> None:
    """Give `path` another content in one step; readers see the old or the new one."""
    fresh = by_way_of / path.name
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, fresh)
    fresh.replace(path)
    _sync_folder(path.parent)


def move_folder(folder: Path, place: Path) -> None:
    """Move a whole folder to a place where nothing is, in one step."""
    folder.rename(place)
    _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: a name outlives a loss of power only then."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

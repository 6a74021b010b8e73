"""Folders that only this user can read: for what callers sent, and temporary ones."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from coalmine.errors import StartError, reason_of

_log = structlog.get_logger(__name__)

_OTHERS: Final = 0o077


def hide_new_files() -> int:
    """Make new files of this process private from now on; return the mask before."""
    return os.umask(_OTHERS)


def open_private(folder: Path, patterns: Sequence[str]) -> None:
    """Make the folder if there is none, and take other users' rights to it.

    Of its files, only those that match `patterns` become private: others may not be ours. One line
    in the log says what an older coalmine left open. Raises OSError if there can't be a folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tightened = [path.name or str(path) for path in _own_paths(folder, patterns) if _tighten(path)]
    if tightened:
        _log.warning("modes_tightened", folder=str(folder), paths=len(tightened))


def _own_paths(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    if folder.stat().st_mode & stat.S_ISVTX:  # as /tmp: it is everybody's, on purpose
        _log.warning("folder_is_shared", folder=str(folder))
    else:
        yield folder
    for pattern in patterns:
        yield from folder.glob(pattern)


def _tighten(path: Path) -> bool:
    """Take other users' rights to `path`; return whether they had any."""
    with contextlib.suppress(FileNotFoundError):  # another of our processes has removed it
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & _OTHERS:
            return False
        try:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
        except FileNotFoundError:
            return False
        except OSError:  # somebody else's, or on a disk that can't be written to
            _log.warning("mode_not_tightened", path=str(path), mode=f"{stat.S_IMODE(mode):o}")
            return False
        return True
    return False


# ---------------------------------------------------------------- temporary ones


def make_temporary_folder(prefix: str, make: Callable[..., str] = tempfile.mkdtemp) -> Path:
    """Return a new folder that only this user can look into. Raises StartError.

    It lies in TMPDIR, or where the system keeps such folders.
    """
    try:
        return Path(make(prefix=prefix))
    except OSError as error:
        raise StartError(
            f"no temporary folder can be made: {reason_of(error)}; "
            "mount one that can be written to at /tmp, or set TMPDIR"
        ) from None


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new temporary folder, and remove it with what is in it. Raises StartError."""
    folder = make_temporary_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

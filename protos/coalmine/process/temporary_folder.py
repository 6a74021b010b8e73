"""Folders that are gone with the process, where this machine lets one be made."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from coalmine.errors import StartError, reason_of


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

"""Whether a path still leads to the database that was opened by it.

One that is removed while it is open takes whatever is written, and all of it is lost.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple


class FileIdentity(NamedTuple):
    """A file, whatever its name: no other has the same two numbers while it is open."""

    device: int
    inode: int


def identity(path: Path) -> FileIdentity | None:
    """Return which file is at `path`; None where there is none, or it can't be reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileIdentity(found.st_dev, found.st_ino)


def drop_journal(path: Path) -> None:
    """Delete what lies beside a database that is gone: SQLite would take it for the next one's."""
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(OSError):  # a folder that lets nothing be deleted
            path.with_name(path.name + suffix).unlink()

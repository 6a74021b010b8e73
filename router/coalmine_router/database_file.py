"""A database of ours as a file: which it is, of which version, and how it is put out of the way.

One that is removed while it is open takes whatever is written, and all of it is lost.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

# With the database itself, all that SQLite keeps of it.
_PARTS: Final = ("", "-wal", "-shm")
_JOURNAL: Final = _PARTS[1:]
# Of SQLite's file format: how a file begins, and where `user_version` stands.
_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT: Final = slice(60, 64)
# What SQLite says of a file that another attempt won't read any better.
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


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


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file itself is damaged, not that the disk is."""
    # The last byte of a code is the code itself, the others say more of it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def schema_version(path: Path) -> int:
    """Return the version that a database says it has, and change nothing: it may be a newer one's.

    0 where there is none. Raises sqlite3.Error, OSError.
    """
    header = _header(path)
    if not header.startswith(_MAGIC):
        return 0
    if not _has_log(path):
        return int.from_bytes(header[_VERSION_AT])
    with contextlib.closing(open_read_only(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return int(version)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, also from a disk that takes nothing.

    For files that nobody else writes to meanwhile. Raises sqlite3.Error.
    """
    # Without a log there is nothing that SQLite needs to write beside the file in order to read it.
    options = "mode=ro" if _has_log(path) else "mode=ro&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?{options}", uri=True)


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_VERSION_AT.stop)
    except FileNotFoundError:
        return b""


def _has_log(path: Path) -> bool:
    """Return whether there is what SQLite has not yet written back: it overrules the file."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def drop_journal(path: Path) -> None:
    """Delete what lies beside a database that is gone: SQLite would take it for the next one's."""
    for suffix in _JOURNAL:
        with contextlib.suppress(OSError):  # a folder that lets nothing be deleted
            path.with_name(path.name + suffix).unlink()


def set_aside(path: Path, name: str) -> None:
    """Call a database, and what belongs to it, `name` instead. Raises OSError."""
    for suffix in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(path.with_name(name + suffix))

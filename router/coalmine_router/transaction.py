"""A transaction of SQLite: all of it, or nothing; and the log before it, which is bounded."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Ten times what SQLite lets it grow to while nobody else reads.
LOG_BYTES_MAX: Final = 48 * 1024 * 1024


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the block's writes be one: on disk once it ends, undone where it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it already
            connection.execute("ROLLBACK")
        raise


def require_short_log(connection: sqlite3.Connection, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Return where a file's write-ahead log is short; one that can be written back is.

    It grows for as long as another program stays in a transaction: without an end, it would fill
    the disk. Raises sqlite3.OperationalError.
    """
    if _log_bytes(connection) <= bytes_max:
        return
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")  # whoever reads may take minutes
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
    if (size := _log_bytes(connection)) > bytes_max:
        raise sqlite3.OperationalError(
            f"its log beside it has {size / 2**20:.0f} MiB: "
            "another program stays in a transaction on the file"
        )


def _log_bytes(connection: sqlite3.Connection) -> int:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    try:
        return Path(f"{path}-wal").stat().st_size if path else 0
    except OSError:
        return 0

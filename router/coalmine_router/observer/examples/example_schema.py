"""The file of the kept examples: opened, made, and brought up to date."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.database_file import schema_version
from coalmine_router.observer.examples.severity import write_rank
from coalmine_router.transaction import transaction

VERSION: Final = 3
_WITHOUT_RANKS: Final = 2

_JOURNAL_BYTES: Final = 4 * 1024 * 1024

# The sequence gives the order; clocks may jump. `bodies` comes last: what is before it is read
# without it.
_SCHEMA: Final = """
CREATE TABLE mismatch (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  route TEXT NOT NULL,
  candidate TEXT NOT NULL,
  kind TEXT NOT NULL,
  rows_mismatch INTEGER NOT NULL,
  max_abs_diff REAL NOT NULL,
  at_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  policy TEXT NOT NULL,
  facts BLOB NOT NULL,
  bodies BLOB NOT NULL
);
CREATE INDEX mismatch_route ON mismatch (route);
CREATE INDEX mismatch_newest ON mismatch (route, candidate, kind, sequence);
CREATE INDEX mismatch_expiry ON mismatch (expires_ns);
CREATE TABLE mismatch_output (
  sequence INTEGER NOT NULL REFERENCES mismatch ON DELETE CASCADE,
  output TEXT NOT NULL,
  PRIMARY KEY (sequence, output)
) WITHOUT ROWID;
"""
# By what an example is worse than others: in a table of its own, so that an older file gets it
# without its bodies being written anew.
_RANKS: Final = """
CREATE TABLE mismatch_rank (
  sequence INTEGER PRIMARY KEY REFERENCES mismatch ON DELETE CASCADE,
  measure TEXT NOT NULL,
  badness REAL NOT NULL
);
DROP INDEX IF EXISTS mismatch_worst;
"""

_HAS_OLDER: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'mismatch'"

# Takes in what an older file held, oldest first.
TakeIn = Callable[[sqlite3.Connection, Iterable[pb.Mismatch]], object]


def connected(path: Path, patience_s: float, take_in: TakeIn) -> sqlite3.Connection:
    """Return the file's connection, in autocommit; a missing file is made, an older one rewritten.

    `patience_s` is how long to wait for a file that somebody else has locked. Raises sqlite3.Error,
    OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_version(schema_version(path))
    database = sqlite3.connect(path, timeout=patience_s, isolation_level=None)
    try:
        _prepare(database, take_in)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, take_in: TakeIn) -> None:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
    # An example lost to a power cut is no harm; the fsyncs would be.
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("PRAGMA foreign_keys=ON")
    # What was to be forgotten is overwritten, not only unlinked.
    database.execute("PRAGMA secure_delete=ON")
    if _version(database) != VERSION:  # else nothing is to be written: the file may be locked
        with transaction(database):
            _bring_up_to_date(database, take_in)


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check_version(version: int) -> None:
    if version > VERSION:
        raise sqlite3.NotSupportedError(
            f"made by a newer coalmine: version {version}, this one reads up to {VERSION}"
        )


def _bring_up_to_date(database: sqlite3.Connection, take_in: TakeIn) -> None:
    version = _version(database)
    if version == _WITHOUT_RANKS:
        _run(database, _RANKS)
        _rank_all(database)
    else:
        _make(database, take_in)
    database.execute(f"PRAGMA user_version={VERSION}")


def _make(database: sqlite3.Connection, take_in: TakeIn) -> None:
    """Make the tables; the records of a file of version 1, which had no number, are taken in."""
    has_older = database.execute(_HAS_OLDER).fetchone() is not None
    if has_older:
        database.execute("ALTER TABLE mismatch RENAME TO older")
    _run(database, _SCHEMA)
    _run(database, _RANKS)
    if has_older:
        take_in(database, _older_records(database))
        database.execute("DROP TABLE older")


def _run(database: sqlite3.Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        database.execute(statement)


def _rank_all(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT sequence, facts FROM mismatch").fetchall()
    for sequence, facts in rows:
        write_rank(database, sequence, pb.Mismatch.FromString(facts))


def _older_records(database: sqlite3.Connection) -> Iterator[pb.Mismatch]:
    """Yield the records of a file of version 1, oldest first."""
    for (body,) in database.execute("SELECT record FROM older ORDER BY sequence"):
        try:
            record = pb.Mismatch.FromString(body)
        except DecodeError:
            continue
        record.kind = record.differences[0].kind if record.differences else ""
        record.capture = "full"
        yield record

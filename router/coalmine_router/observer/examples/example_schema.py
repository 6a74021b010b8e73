"""The file of the kept examples: what it holds, and how an older one is brought up to date."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.examples.severity import write_rank
from coalmine_router.state.sqlite_file import Layout, migration_of

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

_TABLE_NAMED: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"

# Inserts the records of an older file, oldest first.
InsertOlder = Callable[[sqlite3.Connection, Iterable[pb.Mismatch]], object]


def layout(insert_older: InsertOlder) -> Layout:
    """Return how the file is opened; `insert_older` gets the records of version 1."""

    def rank_and_insert_older(database: sqlite3.Connection) -> None:
        migration_of(_RANKS)(database)
        rows = database.execute("SELECT sequence, facts FROM mismatch").fetchall()
        for sequence, facts in rows:
            write_rank(database, sequence, pb.Mismatch.FromString(facts))
        if _has_table(database, "older"):
            insert_older(database, _older_records(database))
            database.execute("DROP TABLE older")

    return Layout(
        (_rename_older, migration_of(_SCHEMA), rank_and_insert_older),
        "made by a newer coalmine: version {found}, this one reads up to {known}",
        # An example lost to a power cut is no harm; the fsyncs would be.
        synchronous="NORMAL",
        is_proved=False,
        pragmas=(
            f"journal_size_limit = {_JOURNAL_BYTES}",
            "foreign_keys = ON",
            # Deleted records are overwritten, not only unlinked.
            "secure_delete = ON",
        ),
    )


def _rename_older(database: sqlite3.Connection) -> None:
    """Make room for the tables: a file of version 1 has no number, and one of the same name."""
    if _has_table(database, "mismatch"):
        database.execute("ALTER TABLE mismatch RENAME TO older")


def _has_table(database: sqlite3.Connection, name: str) -> bool:
    return database.execute(_TABLE_NAMED, (name,)).fetchone() is not None


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

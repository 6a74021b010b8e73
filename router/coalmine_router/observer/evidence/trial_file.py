"""The file of trials: SQLite, with what is written in one transaction. For one thread.

What the file holds of a trial is its text, which is not looked at here.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.saved import Unreadable
from coalmine_router.state.sqlite_file import DamagedFile, Layout, SqliteFile, migration_of

FILE: Final = "evidence.db"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trial (
  route TEXT NOT NULL,
  reference TEXT NOT NULL,
  candidate TEXT NOT NULL,
  number INTEGER NOT NULL,
  began_ns INTEGER NOT NULL,
  ended_ns INTEGER NOT NULL,
  saved TEXT NOT NULL,
  PRIMARY KEY (route, reference, candidate, number)
);
CREATE INDEX IF NOT EXISTS trial_ended ON trial (ended_ns)
"""
_LAYOUT: Final = Layout(
    (migration_of(_SCHEMA),),
    "schema {found} is newer than this coalmine's, {known}: it stays as it is",
)
_COLUMNS: Final = "route, reference, candidate, number, began_ns, ended_ns, saved"
_PUT: Final = f"INSERT OR REPLACE INTO trial ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_OPEN: Final = f"SELECT {_COLUMNS} FROM trial WHERE ended_ns = 0"  # noqa: S608 - constants
_NUMBERED: Final = """
SELECT route, reference, candidate, max(number) FROM trial GROUP BY route, reference, candidate
"""
_END: Final = """
UPDATE trial SET ended_ns = ?
WHERE route = ? AND reference = ? AND candidate = ? AND ended_ns = 0
"""
_ENDED: Final = (
    f"SELECT {_COLUMNS} FROM trial "  # noqa: S608 - constants
    "WHERE route = ?1 AND (?2 = '' OR candidate = ?2) AND ended_ns > 0 "
    "ORDER BY began_ns DESC, number DESC LIMIT ?3"
)
_PRUNE: Final = """
DELETE FROM trial WHERE route = ?1 AND reference = ?2 AND candidate = ?3 AND ended_ns > 0
AND number <= (
  SELECT number FROM trial WHERE route = ?1 AND reference = ?2 AND candidate = ?3 AND ended_ns > 0
  ORDER BY number DESC LIMIT 1 OFFSET ?4)
"""
# Those of pairs that are gone would stay for ever otherwise.
_PRUNE_ALL: Final = """
DELETE FROM trial WHERE ended_ns > 0 AND ended_ns <= (
  SELECT ended_ns FROM trial WHERE ended_ns > 0 ORDER BY ended_ns DESC LIMIT 1 OFFSET ?)
"""
FAILURES: Final = (sqlite3.Error, OSError, Unreadable)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How many ended trials are kept, and how long the disk is waited for."""

    ended_of_pair: int = 50
    ended: int = 5_000
    # How long a write waits for a file that somebody else has locked, and how long loading does.
    busy_s: float = 1.0
    load_busy_s: float = 10.0
    interval_s: float = 1.0


class Row(NamedTuple):
    """One trial, as the file has it."""

    pair: Pair
    number: int
    began_ns: int
    ended_ns: int
    saved: str

    @classmethod
    def of(cls, *columns: Any) -> Self:
        """Return the row of the file's columns."""
        return cls(Pair(*columns[:3]), *columns[3:])


class TrialFile(SqliteFile):
    """Opened when it is first used, and again after a failure. Raises one of FAILURES."""

    def __init__(self, path: Path, limits: StoreLimits) -> None:
        super().__init__(path, _LAYOUT, thread="evidence", patience_s=limits.busy_s)
        self._limits = limits

    def open_known(
        self, known: Callable[[Pair], bool], now_ns: int
    ) -> tuple[list[Row], dict[Pair, int]]:
        """Return the open trials of known pairs, and each pair's last number; end the others."""
        self.patience_s = self._limits.load_busy_s
        try:
            with self.writing() as database:
                found, numbered = _open_trials(database)
                gone = {row.pair for row in found if not known(row.pair)}
                database.executemany(_END, [(now_ns, *pair) for pair in gone])
        finally:
            self.patience_s = self._limits.busy_s
            self.close()  # a connection keeps the patience that it was opened with
        return [row for row in found if row.pair not in gone], numbered

    def read(self, known: Callable[[Pair], bool]) -> tuple[list[Row], dict[Pair, int]]:
        """Return the same of a file on a disk that takes nothing; other pairs' trials stay open."""
        with self.reading_only() as database:
            found, numbered = _open_trials(database)
        return [row for row in found if known(row.pair)], numbered

    def ended_trials(self, route: str, candidate: str, limit: int) -> list[Row]:
        """Return the newest ended trials of a route; of all candidates where that is ""."""
        asked = (route, candidate, limit)
        return [Row.of(*each) for each in self.open().execute(_ENDED, asked)]

    def write(self, rows: Sequence[Row]) -> None:
        """Put the rows in the place of those with their numbers; all of them, or none."""
        with self.writing() as database:
            database.executemany(_PUT, [(*row.pair, *row[1:]) for row in rows])
            ended = {row.pair for row in rows if row.ended_ns}
            limit = self._limits.ended_of_pair
            database.executemany(_PRUNE, [(*pair, limit) for pair in ended])
            if ended:
                database.execute(_PRUNE_ALL, (self._limits.ended,))

    def open(self) -> sqlite3.Connection:
        """Open the file where it isn't, and return its connection. A damaged one is Unreadable."""
        try:
            return super().open()
        except DamagedFile as error:
            raise Unreadable(str(error)) from None


def _open_trials(database: sqlite3.Connection) -> tuple[list[Row], dict[Pair, int]]:
    found = [Row.of(*each) for each in database.execute(_OPEN)]
    return found, {Pair(*each[:3]): each[3] for each in database.execute(_NUMBERED)}

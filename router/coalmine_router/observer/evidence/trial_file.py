"""The file of trials: SQLite, with what is written in one transaction. For one thread.

What the file holds of a trial is its text, which is not looked at here.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from coalmine_router.database_file import (
    FileIdentity,
    drop_journal,
    identity,
    is_damage,
    open_read_only,
    schema_version,
    set_aside,
)
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.saved import Unreadable
from coalmine_router.transaction import require_short_log, transaction

FILE: Final = "evidence.db"
SCHEMA_VERSION: Final = 1

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


class TrialFile:
    """Opened when it is first used, and again after a failure. Raises one of FAILURES."""

    def __init__(self, path: Path, limits: StoreLimits) -> None:
        self._path = path
        self._limits = limits
        self._database: sqlite3.Connection | None = None
        self._patience_s = limits.busy_s
        self._begins_anew = False
        self._opened: FileIdentity | None = None

    def begin_anew(self) -> None:
        """Have what is there set aside before anything is written."""
        self._begins_anew = True

    def open_known(
        self, known: Callable[[Pair], bool], now_ns: int
    ) -> tuple[list[Row], dict[Pair, int]]:
        """Return the open trials of known pairs, and each pair's last number; end the others."""
        self._patience_s = self._limits.load_busy_s
        try:
            with self._writing() as database:
                found, numbered = _open_trials(database)
                gone = {row.pair for row in found if not known(row.pair)}
                database.executemany(_END, [(now_ns, *pair) for pair in gone])
        finally:
            self._patience_s = self._limits.busy_s
            self.close()  # a connection keeps the patience that it was opened with
        return [row for row in found if row.pair not in gone], numbered

    def read(self, known: Callable[[Pair], bool]) -> tuple[list[Row], dict[Pair, int]]:
        """Return the same of a file on a disk that takes nothing; other pairs' trials stay open."""
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _check_version(self._path)
        with contextlib.closing(open_read_only(self._path)) as database:
            found, numbered = _open_trials(database)
        return [row for row in found if known(row.pair)], numbered

    def is_gone(self) -> bool:
        """Return whether the file that was opened last is no longer at its path."""
        return self._opened is not None and identity(self._path) != self._opened

    def forget(self) -> None:
        """Let go of a file that is gone: what is at its path is opened with the next write."""
        self.close()
        self._opened = None
        drop_journal(self._path)

    def ended_trials(self, route: str, candidate: str, limit: int) -> list[Row]:
        """Return the newest ended trials of a route; of all candidates where that is ""."""
        asked = (route, candidate, limit)
        return [Row.of(*each) for each in self._connect().execute(_ENDED, asked)]

    def write(self, rows: Sequence[Row]) -> None:
        """Put the rows in the place of those with their numbers; all of them, or none."""
        with self._writing() as database:
            database.executemany(_PUT, [(*row.pair, *row[1:]) for row in rows])
            ended = {row.pair for row in rows if row.ended_ns}
            limit = self._limits.ended_of_pair
            database.executemany(_PRUNE, [(*pair, limit) for pair in ended])
            if ended:
                database.execute(_PRUNE_ALL, (self._limits.ended,))

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            if self._begins_anew:
                set_aside(self._path, f"{self._path.name}.unreadable")
                self._begins_anew, self._opened = False, None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(self._path, self._patience_s)
            self._opened = identity(self._path)
        return self._database

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            database = self._connect()
            require_short_log(database)
            with transaction(database):
                yield database
        except BaseException:
            self.close()
            raise


def _open_trials(database: sqlite3.Connection) -> tuple[list[Row], dict[Pair, int]]:
    found = [Row.of(*each) for each in database.execute(_OPEN)]
    return found, {Pair(*each[:3]): each[3] for each in database.execute(_NUMBERED)}


def _open(path: Path, busy_s: float) -> sqlite3.Connection:
    """Return the file, made where it is missing; a newer coalmine's is left untouched.

    Raises sqlite3.Error or OSError, and Unreadable for one that is damaged.
    """
    _check_version(path)
    database = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
    try:
        _prepare(database)
    except sqlite3.DatabaseError as error:
        database.close()
        if is_damage(error):
            raise Unreadable(str(error)) from None
        raise
    except BaseException:
        database.close()
        raise
    return database


def _check_version(path: Path) -> None:
    version = schema_version(path)
    if version > SCHEMA_VERSION:
        raise sqlite3.NotSupportedError(
            f"schema {version} is newer than this coalmine's, {SCHEMA_VERSION}: it stays as it is"
        )


def _prepare(database: sqlite3.Connection) -> None:
    (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise Unreadable(f"damaged: {' '.join(damage.split())}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(_SCHEMA)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

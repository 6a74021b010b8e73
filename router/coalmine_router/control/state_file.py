"""The file of the history: opened, made where there is none, or why it can't be used."""

import sqlite3
from pathlib import Path
from typing import Final

from coalmine.errors import Unavailable, reason_of
from coalmine_router.database_file import is_damage, schema_version
from coalmine_router.transaction import transaction

SCHEMA_VERSION: Final = 1
COLUMNS: Final = "revision, route, at_ns, actor, reason, action, before, after, definition"

_SCHEMA: Final = """
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY, route TEXT NOT NULL, at_ns INTEGER NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, action TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, definition TEXT NOT NULL
);
CREATE INDEX changes_of_route ON changes (route, revision);
"""
_READ_ONE: Final = f"SELECT {COLUMNS} FROM changes LIMIT 1"  # noqa: S608 - constants


class StateUnusable(Unavailable):
    """The state can't be read or written now; its text is why, in one line."""


class StateDamaged(StateUnusable):
    """The history's file can't be read, and no other attempt will read it any better."""


def open_history(path: Path) -> sqlite3.Connection:
    """Return a connection that reads and writes the history. A newer coalmine's is left untouched.

    Raises StateUnusable, and StateDamaged for a file that is to be set aside.
    """
    try:
        _check_version(path)
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise unusable(error) from None
    try:
        _prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(error) from None
    except StateUnusable:
        connection.close()
        raise
    return connection


def unusable(error: sqlite3.Error | OSError) -> StateUnusable:
    """Return what an error means for the state."""
    if isinstance(error, OSError):
        return StateUnusable(reason_of(error))
    said = " ".join(str(error).split())
    if is_damage(error):
        return StateDamaged(f"damaged: {said}")
    return StateUnusable(said)


def _check_version(path: Path) -> None:
    version = schema_version(path)
    if version > SCHEMA_VERSION:
        raise StateUnusable(
            f"schema {version} is newer than this coalmine, which knows {SCHEMA_VERSION}: "
            "it stays as it is"
        )


def _prepare(connection: sqlite3.Connection) -> None:
    (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise StateDamaged(f"damaged: {' '.join(damage.split())}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StateUnusable("the file system doesn't let SQLite write ahead")
    connection.execute("PRAGMA synchronous = FULL")
    _migrate(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    # Also where nothing is to be done: a file that can't be written to is found out now.
    with transaction(connection):
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    try:
        connection.execute(_READ_ONE).fetchall()
    except sqlite3.OperationalError as error:
        raise StateDamaged(f"damaged: {error}") from None

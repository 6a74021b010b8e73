"""The history on disk: one SQLite file, one thread, one router at a time."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from coalmine.errors import StartError, Unavailable, reason_of
from coalmine_router.control.history import Change, Split
from coalmine_router.disk_outage import DiskOutage
from coalmine_router.state_folder import open_state
from coalmine_router.transaction import transaction

Result = TypeVar("Result")

FILE: Final = "control.db"
SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY, route TEXT NOT NULL, at_ns INTEGER NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, action TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, definition TEXT NOT NULL
);
CREATE INDEX changes_of_route ON changes (route, revision);
"""
_COLUMNS: Final = "revision, route, at_ns, actor, reason, action, before, after, definition"
_INSERT: Final = f"INSERT INTO changes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_OF_ROUTE: Final = f"SELECT {_COLUMNS} FROM changes WHERE route = ? ORDER BY revision DESC LIMIT ?"  # noqa: S608 - constants
_NEWEST: Final = (
    f"SELECT {_COLUMNS} FROM changes "  # noqa: S608 - constants
    "WHERE revision IN (SELECT max(revision) FROM changes GROUP BY route) ORDER BY revision"
)

_Row = tuple[int, str, int, str, str, str, str, str, str]


class Store:
    """Every change of every route, in the order they were made. One loop's, and `open` makes it."""

    def __init__(
        self, path: Path, lock: int, thread: ThreadPoolExecutor, connection: sqlite3.Connection
    ) -> None:
        self._path = path
        self._lock = lock
        self._thread = thread
        self._connection = connection
        self._outage = DiskOutage(
            path, "takes no changes", began="change_not_written", ended="changes_written_again"
        )

    @classmethod
    async def open(cls, folder: Path) -> "Store":
        """Return the store of a state folder, which is made where it is missing.

        Raises StartError: a folder that can't be written, a file that is damaged or newer than this
        program, or another router that uses it.
        """
        lock = _locked(folder)
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coalmine-store")
        loop = asyncio.get_running_loop()
        try:
            path = folder / FILE
            return cls(path, lock, thread, await loop.run_in_executor(thread, _connected, path))
        except BaseException:
            thread.shutdown()
            os.close(lock)
            raise

    async def append(self, changes: Sequence[Change]) -> None:
        """Return once all of `changes`, or by an error none of them, will outlive a power failure.

        Raises Unavailable where the disk won't take them.
        """
        try:
            await self._in_thread(lambda: _append(self._connection, changes))
        except sqlite3.Error as error:
            self._outage.note(error)
            raise Unavailable(f"the change could not be written to disk: {error}") from None
        self._outage.note_over()

    def trouble(self) -> str:
        """Return what is wrong with the disk, in one line; "" where nothing is."""
        return self._outage.trouble

    async def newest(self) -> dict[str, Change]:
        """Return each route's newest change, by name. Raises StartError for unreadable entries."""
        rows = await self._in_thread(lambda: self._connection.execute(_NEWEST).fetchall())
        try:
            return {row[1]: _change(row) for row in rows}
        except ValueError as error:
            raise StartError(f"{self._path}: {error}") from None

    async def history(self, route: str, limit: int) -> list[Change]:
        """Return a route's changes, newest first, at most `limit`."""
        rows = await self._in_thread(
            lambda: self._connection.execute(_OF_ROUTE, (route, limit)).fetchall()
        )
        return [_change(row) for row in rows]

    async def close(self) -> None:
        """Close the file and let another router use the folder."""
        await self._in_thread(self._connection.close)
        self._thread.shutdown()
        os.close(self._lock)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _append(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    with transaction(connection):
        connection.executemany(_INSERT, [_row(change) for change in changes])


def _row(change: Change) -> _Row:
    return (
        change.revision,
        change.route,
        change.at_ns,
        change.actor,
        change.reason,
        change.action,
        change.before.to_json(),
        change.after.to_json(),
        change.definition,
    )


def _change(row: _Row) -> Change:
    revision, route, at_ns, actor, reason, action, before, after, definition = row
    if action not in {"configured", "weights", "shadow"}:
        raise ValueError(f"revision {revision} has the unknown action '{action}'")
    return Change(
        revision=revision,
        route=route,
        at_ns=at_ns,
        actor=actor,
        reason=reason,
        action=action,  # type: ignore[arg-type]  # checked above
        before=Split.from_json(before),
        after=Split.from_json(after),
        definition=definition,
    )


def newest_in(connection: sqlite3.Connection) -> list[Change]:
    """Return each route's newest change. Raises sqlite3.Error, ValueError."""
    return [_change(row) for row in connection.execute(_NEWEST)]


# ---------------------------------------------------------------- opening


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the folder until it is closed, or its process is gone."""
    try:
        open_state(folder)
        lock = os.open(folder / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"state folder {folder}: {reason_of(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(f"state folder {folder}: in use by another router") from None
    return lock


def _connected(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    except sqlite3.Error as error:
        raise StartError(f"{path}: {error}") from None
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StartError(f"{path}: {error}") from None
    except StartError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise StartError(f"{path}: damaged: {' '.join(damage.split())}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StartError(f"{path}: the file system doesn't let SQLite write ahead")
    connection.execute("PRAGMA synchronous = FULL")
    _migrate(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StartError(
            f"{path}: schema {version} is newer than this coalmine, which knows {SCHEMA_VERSION}"
        )
    # Also where nothing is to be done: a file that can't be written to is found out now.
    with transaction(connection):
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

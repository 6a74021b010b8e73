"""The history on disk: one SQLite file, in a thread of its own. FolderLock says whose it is."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog

from coalmine_router.control.route_history import Change, Split
from coalmine_router.control.state_file import (
    COLUMNS,
    StateDamaged,
    StateUnusable,
    open_history,
    unusable,
)
from coalmine_router.database_file import identity
from coalmine_router.transaction import require_short_log, transaction

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

FILE: Final = "control.db"

_INSERT: Final = f"INSERT INTO changes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_OF_ROUTE: Final = f"SELECT {COLUMNS} FROM changes WHERE route = ? ORDER BY revision DESC LIMIT ?"  # noqa: S608 - constants
_NEWEST: Final = (
    f"SELECT {COLUMNS} FROM changes "  # noqa: S608 - constants
    "WHERE revision IN (SELECT max(revision) FROM changes GROUP BY route) ORDER BY revision"
)


class _UnknownAction(ValueError):
    pass


_Row = tuple[int, str, int, str, str, str, str, str, str]


class Store:
    """Every change of every route, in the order they were made. One loop's, and `open` makes it.

    Raises StateUnusable where the disk is in trouble; it is closed then, and another one opened.
    """

    def __init__(
        self, path: Path, thread: ThreadPoolExecutor, connection: sqlite3.Connection
    ) -> None:
        self._path = path
        self._thread = thread
        self._connection = connection
        self._opened = identity(path)

    @classmethod
    async def open(cls, folder: Path) -> "Store":
        """Return the store of a state folder; its file is made where it is missing.

        Raises StateUnusable; StateDamaged for a file that is to be set aside.
        """
        path = folder / FILE
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coalmine-store")
        loop = asyncio.get_running_loop()
        try:
            return cls(path, thread, await loop.run_in_executor(thread, open_history, path))
        except BaseException:
            thread.shutdown()
            raise

    async def append(self, changes: Sequence[Change]) -> None:
        """Return once all of `changes`, or by an error none of them, will outlive a power failure.

        Raises StateUnusable where the disk won't take them.
        """
        try:
            await self._in_thread(lambda: _append(self._connection, changes))
        except sqlite3.Error as error:
            why = unusable(error)
            _log.error("change_not_written", file=str(self._path), error=str(why))
            raise why from None

    async def newest(self) -> dict[str, Change]:
        """Return each route's newest change, by name. Raises StateDamaged for unreadable ones."""
        rows = await self._read(lambda: self._connection.execute(_NEWEST).fetchall())
        try:
            return {row[1]: _change(row) for row in rows}
        except _UnknownAction as error:
            raise StateUnusable(f"{error}, maybe of a newer coalmine: it stays as it is") from None
        except ValueError as error:
            raise StateDamaged(f"damaged: {error}") from None

    async def history(self, route: str, limit: int) -> list[Change]:
        """Return a route's changes, newest first, at most `limit`. Raises StateUnusable."""
        rows = await self._read(
            lambda: self._connection.execute(_OF_ROUTE, (route, limit)).fetchall()
        )
        return [_change(row) for row in rows]

    def is_gone(self) -> bool:
        """Return whether the file that was opened is no longer at its path."""
        return identity(self._path) != self._opened

    async def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            await self._in_thread(self._connection.close)
        self._thread.shutdown()

    async def _read(self, work: Callable[[], Result]) -> Result:
        try:
            return await self._in_thread(work)
        except sqlite3.Error as error:
            raise unusable(error) from None

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _append(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    require_short_log(connection)
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
        raise _UnknownAction(f"revision {revision} has the unknown action '{action}'")
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

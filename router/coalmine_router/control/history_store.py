"""The history on disk: one SQLite file, in a thread of its own. FolderLock says whose it is."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from coalmine_router.control.route_history import Change, Split
from coalmine_router.control.state_file import (
    COLUMNS,
    FILE,
    LAYOUT,
    StateDamaged,
    StateUnusable,
    state_error_of,
)
from coalmine_router.state.sqlite_file import SqliteFile

_log = structlog.get_logger(__name__)

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

    def __init__(self, folder: Path) -> None:
        self._file = SqliteFile(folder / FILE, LAYOUT, thread="coalmine-store")

    @classmethod
    async def open(cls, folder: Path) -> "Store":
        """Return the store of a state folder; its file is made where it is missing.

        Raises StateUnusable; StateDamaged for a file that is to be set aside.
        """
        store = cls(folder)
        try:
            await store._file.run_in_thread(store._file.open)
        except BaseException as error:
            await store.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise state_error_of(error) from None
            raise
        return store

    async def append(self, changes: Sequence[Change]) -> None:
        """Return once all of `changes`, or by an error none of them, will outlive a power failure.

        Raises StateUnusable where the disk won't take them.
        """
        try:
            await self._file.run_in_thread(lambda: self._insert(changes))
        except (sqlite3.Error, OSError) as error:
            why = state_error_of(error)
            _log.error("change_not_written", file=str(self._file.path), error=str(why))
            raise why from None

    async def newest_changes(self) -> dict[str, Change]:
        """Return each route's newest change, by name. Raises StateDamaged for unreadable ones."""
        rows = await self._query_rows(_NEWEST)
        try:
            return {row[1]: _change_of(row) for row in rows}
        except _UnknownAction as error:
            raise StateUnusable(f"{error}, maybe of a newer coalmine: it stays as it is") from None
        except ValueError as error:
            raise StateDamaged(f"damaged: {error}") from None

    async def history(self, route: str, limit: int) -> list[Change]:
        """Return a route's changes, newest first, at most `limit`. Raises StateUnusable."""
        return [_change_of(row) for row in await self._query_rows(_OF_ROUTE, route, limit)]

    def is_gone(self) -> bool:
        """Return whether the file that was opened is no longer at its path."""
        return self._file.is_gone()

    async def close(self) -> None:
        """Close the file."""
        await self._file.end()

    async def _query_rows(self, query: str, *given: object) -> list[Any]:
        file = self._file
        try:
            return await file.run_in_thread(lambda: file.open().execute(query, given).fetchall())
        except (sqlite3.Error, OSError) as error:
            raise state_error_of(error) from None

    def _insert(self, changes: Sequence[Change]) -> None:
        with self._file.writing() as connection:
            connection.executemany(_INSERT, [_row_of(change) for change in changes])


def _row_of(change: Change) -> _Row:
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


def _change_of(row: _Row) -> Change:
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
    return [_change_of(row) for row in connection.execute(_NEWEST)]

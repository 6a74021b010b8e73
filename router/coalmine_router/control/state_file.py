"""The file of the history: what it holds, and what its errors mean."""

import sqlite3
from typing import Final

from coalmine.errors import Unavailable, reason_of
from coalmine_router.state.sqlite_file import Layout, is_damage, migration_of

FILE: Final = "control.db"
COLUMNS: Final = "revision, route, at_ns, actor, reason, action, before, after, definition"

_SCHEMA: Final = """
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY, route TEXT NOT NULL, at_ns INTEGER NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, action TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, definition TEXT NOT NULL
);
CREATE INDEX changes_of_route ON changes (route, revision);
"""
LAYOUT: Final = Layout(
    (migration_of(_SCHEMA),),
    "schema {found} is newer than this coalmine, which knows {known}: it stays as it is",
    needs_log=True,
    sample=f"SELECT {COLUMNS} FROM changes LIMIT 1",  # noqa: S608 - constants
)


class StateUnusable(Unavailable):
    """The state can't be read or written now; its text is why, in one line."""


class StateDamaged(StateUnusable):
    """The history's file can't be read, and no other attempt will read it any better."""


def state_error_of(error: sqlite3.Error | OSError) -> StateUnusable:
    """Return what an error means for the state."""
    if isinstance(error, OSError):
        return StateUnusable(reason_of(error))
    said = " ".join(str(error).split())
    if is_damage(error):
        return StateDamaged(f"damaged: {said.removeprefix('damaged: ')}")
    return StateUnusable(said)

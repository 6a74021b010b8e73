"""The record of models loaded and unloaded by RPC, for workers that start later.

One JSON file in the workers' folder, replaced by one step; it goes when the server ends. It has at
most as many entries as there ever were models.
"""

import asyncio
import fcntl
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from coalmine.errors import Overloaded
from coalmine_server.file_lock import try_lock

_FILE: Final = "changes.json"
_WRITING: Final = "changes.lock"
_TURN: Final = "turn.lock"
_POLL_S: Final = 0.02


class LoadEntry(NamedTuple):
    """The last change of a model, and its number: a later one has a greater."""

    number: int
    is_unloaded: bool


LoadEntries = Mapping[str, LoadEntry]


class LoadRecord:
    """The file and its locks, which a process loses when it dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, LoadEntry]:
        """Return the last change of each model; nothing where there was none."""
        try:
            written = json.loads((self._folder / _FILE).read_bytes())
        except FileNotFoundError:
            return {}
        return {name: LoadEntry(*entry) for name, entry in written.items()}

    def record_change(self, name: str, *, is_unloaded: bool) -> None:
        """Record that a model was loaded or unloaded just now."""
        with (self._folder / _WRITING).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self.read()
            number = 1 + max((each.number for each in entries.values()), default=0)
            self._write_entries({**entries, name: LoadEntry(number, is_unloaded)})

    @asynccontextmanager
    async def take_turn(self, *, wait_s: float) -> AsyncIterator[None]:
        """Be the only worker that loads or unloads. Raises Overloaded after `wait_s`."""
        with (self._folder / _TURN).open("a") as lock:
            try:
                async with asyncio.timeout(wait_s):
                    while not try_lock(lock):  # noqa: ASYNC110 - another process lets go of it
                        await asyncio.sleep(_POLL_S)
            except TimeoutError:
                why = f"another change has been under way for {wait_s:g} s"
                raise Overloaded(why) from None
            yield

    def _write_entries(self, entries: LoadEntries) -> None:
        fresh = self._folder / f"{_FILE}.new"
        fresh.write_text(json.dumps(entries), encoding="utf-8")
        fresh.replace(self._folder / _FILE)


def changes_since(before: LoadEntries, now: LoadEntries) -> dict[str, LoadEntry]:
    """Return the changes that came after `before`, in their order."""
    fresh = {name: entry for name, entry in now.items() if before.get(name) != entry}
    return dict(sorted(fresh.items(), key=lambda each: each[1].number))

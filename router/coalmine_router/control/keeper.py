"""The router's state: the table in force, and the history on disk, as soon as the disk is usable.

Without it nothing ends: what was served last is served on, changes are refused, and the disk is
tried again until it is usable.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import CoalmineError, StartError, reason_of
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.folder_lock import FolderLock
from coalmine_router.control.history_store import Store
from coalmine_router.control.resume import Resumed, Served, is_redefined, saved_start, served_start
from coalmine_router.control.route_history import Change
from coalmine_router.control.state_file import FILE, StateDamaged, StateUnusable
from coalmine_router.snapshot import table_from, table_message
from coalmine_router.state.disk_outage import DiskOutage
from coalmine_router.state.saved_table import FILE as TABLE_FILE
from coalmine_router.state.saved_table import SavedTable
from coalmine_router.state.sqlite_file import set_aside
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

_AGAIN_S: Final = 2.0


class StateKeeper:
    """One router's state. Its life: `open`, `run` in a task, `close`."""

    def __init__(
        self, folder: Path, configured: RouteTable, clock: Clock, *, again_s: float = _AGAIN_S
    ) -> None:
        self._path = folder / FILE
        self._configured = configured
        self._clock = clock
        self._again_s = again_s
        self._lock = FolderLock(folder)
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        # What became of the history, where it was lost: for the first entries of the next one.
        self._lost = ""
        self._outage = DiskOutage(
            self._path, "takes no changes", began="state_unusable", ended="state_usable_again"
        )
        self._saved = SavedTable(folder / TABLE_FILE)
        self._unsaved = DiskOutage(
            self._saved.path, "is not saved", began="table_not_saved", ended="table_saved_again"
        )
        self._on_disk: pb.RouteTable | None = None
        self.current: CurrentTable

    @classmethod
    async def open(
        cls, folder: Path, configured: RouteTable, clock: Clock, *, again_s: float = _AGAIN_S
    ) -> "StateKeeper":
        """Return the keeper, at the state that was saved; where that can't be used, without it.

        Raises StartError where another router uses the folder, there can't be a folder, or what is
        saved doesn't fit the configuration.
        """
        keeper = cls(folder, configured, clock, again_s=again_s)
        try:
            await keeper._set_first_table(await keeper._read_saved_table())
        except BaseException:
            await keeper.close()
            raise
        return keeper

    @property
    def is_usable(self) -> bool:
        """Whether changes are taken."""
        return self._store is not None

    def troubles(self) -> list[str]:
        """Return what is wrong with the disk, a line each."""
        return [each.trouble for each in (self._outage, self._unsaved) if each.trouble]

    async def ensure_usable(self) -> None:
        """Return where changes are taken. Raises StateUnusable; a disk in trouble is tried first.

        The table in force may be another one afterwards.
        """
        if self._store is not None and self._store.is_gone():
            await self._drop_store(StateUnusable("the file was removed"))
        if self._store is None:
            await self._use_disk_again()
        if self._store is None:
            raise StateUnusable(self._outage.trouble)

    async def append(self, changes: Sequence[Change]) -> None:
        """Return once all of `changes` will outlive a power failure. Raises StateUnusable."""
        if self._store is None:
            raise StateUnusable(self._outage.trouble)
        try:
            await self._store.append(changes)
        except StateUnusable as error:
            await self._drop_store(error)
            raise StateUnusable(f"the change could not be written to disk: {error}") from None

    async def history(self, route: str, limit: int) -> list[Change]:
        """Return a route's changes, newest first, at most `limit`. Raises StateUnusable."""
        if self._store is None:
            raise StateUnusable(f"the history can't be read: {self._outage.trouble}")
        return await self._store.history(route, limit)

    async def run(self) -> None:
        """Use the disk again once that is possible, and save each table, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_reopening_store())
            group.create_task(self._save_tables())

    async def close(self) -> None:
        """Let go of the state folder."""
        if self._store is not None:
            await self._store.close()
            self._store = None
        self._lock.release()

    # ------------------------------------------------------------ taking up

    async def _read_saved_table(self) -> Served | None:
        self._on_disk = await asyncio.to_thread(self._saved.read)
        return None if self._on_disk is None else Served(table_from(self._on_disk))

    async def _set_first_table(self, served: Served | None) -> None:
        try:
            table = await self._open_and_resume(served)
        except StateUnusable as error:
            found = served or Served(_first_table(self._configured), is_provisional=True)
            self.current = CurrentTable(found.table, is_provisional=found.is_provisional)
            self._note_outage(error)
        else:
            self.current = CurrentTable(table)

    async def _use_disk_again(self) -> None:
        """Use the disk again, if it lets itself be used."""
        async with self._opening:
            if self._store is not None:
                return
            try:
                table = await self._open_and_resume(self._served_now())
            except (StateUnusable, StartError) as error:
                self._note_outage(error)
            else:
                self._outage.note_success()
                self.current.swap(table)

    def _served_now(self) -> Served:
        return Served(self.current.table, self.current.is_provisional)

    async def _open_and_resume(self, served: Served | None) -> RouteTable:
        """Return the table to go on with, once the history has it.

        Raises StateUnusable, StartError.
        """
        self._lock.take()
        store, newest = await self._open_store()
        try:
            resumed = self._resumed_state(newest, served)
            await store.append(resumed.changes)
        except BaseException:
            await store.close()
            raise
        self._store, self._lost = store, ""
        for change in resumed.changes:
            _log.info("configured", route=change.route, revision=change.revision, why=change.reason)
        return resumed.table

    def _resumed_state(self, newest: Mapping[str, Change], served: Served | None) -> Resumed:
        lost = self._lost
        if lost and (served is None or served.is_provisional):
            lost += "; no table was saved: begun by the file"
        try:
            return served_start(self._configured, newest, served, self._clock.wall_ns(), lost=lost)
        except CoalmineError as error:
            raise StartError(f"the saved state can't be taken up: {error}") from None

    async def _open_store(self) -> tuple[Store, Mapping[str, Change]]:
        """Return the store and its newest changes; a damaged file makes way for a new one."""
        try:
            return await self._try_to_open()
        except StateDamaged as error:
            self._lost = await asyncio.to_thread(_move_aside, self._path, str(error))
        return await self._try_to_open()

    async def _try_to_open(self) -> tuple[Store, Mapping[str, Change]]:
        store = await Store.open(self._path.parent)
        try:
            return store, await store.newest_changes()
        except BaseException:
            await store.close()
            raise

    # ------------------------------------------------------------ meanwhile

    async def _drop_store(self, why: StateUnusable) -> None:
        store, self._store = self._store, None
        self._note_outage(why)
        if store is not None:
            async with self._opening:  # the next one is opened once this one has let go of the file
                await store.close()

    def _note_outage(self, why: Exception) -> None:
        meanwhile = f"serves by {_source_text(self._served_now())}"
        if is_redefined(self._configured, self.current.table):
            meanwhile += "; the configuration file says otherwise, and has to wait"
        self._outage.note_failure(why, meanwhile=meanwhile)

    async def _keep_reopening_store(self) -> None:
        while True:
            await asyncio.sleep(self._again_s)
            with contextlib.suppress(StateUnusable):
                await self.ensure_usable()

    async def _save_tables(self) -> None:
        """Keep the table in force on disk: enough to start by, should the history be lost."""
        while True:
            table = self.current.table
            # The file's own would be taken for the last that was served.
            if self.current.is_provisional or await self._save_table(table_message(table)):
                await self.current.wait_for_other(table)
            else:
                await asyncio.sleep(self._again_s)

    async def _save_table(self, message: pb.RouteTable) -> bool:
        if message == self._on_disk:
            return True
        try:
            await asyncio.to_thread(self._saved.write, message, durable=True)
        except OSError as error:
            self._unsaved.note_failure(reason_of(error))
            return False
        self._on_disk = message
        self._unsaved.note_success()
        return True


def _first_table(configured: RouteTable) -> RouteTable:
    """Return the table of a first start. Raises InvalidRequest."""
    return saved_start(configured, {}, 0, 0).table


def _source_text(served: Served) -> str:
    if served.is_provisional:
        return "the configuration file: no table was saved"
    return f"the last table that was saved, revision {served.table.revision}"


def _move_aside(path: Path, why: str) -> str:
    """Set a damaged history aside; return what became of it. Raises StateUnusable."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = _numbered_names(f"{path.name}.damaged-{now}")
    name = next(each for each in names if not path.with_name(each).exists())
    try:
        set_aside(path, name)
    except OSError as error:
        raise StateUnusable(f"{why}; it can't be set aside: {reason_of(error)}") from None
    _log.error("state_set_aside", file=str(path), to=name, error=why)
    return f"the history was {why}, and is set aside as {name}"


def _numbered_names(first: str) -> Iterator[str]:
    yield first
    yield from (f"{first}.{number}" for number in count(2))

"""The kept examples: a SQLite file, written and read in a thread of its own.

Nothing waits for it, and nothing fails with it: what can't be written is counted and logged.
"""

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound, Unavailable
from coalmine_router.database_file import FileIdentity, drop_journal, identity
from coalmine_router.disk_outage import DiskOutage
from coalmine_router.observer.examples import reading, reservoir
from coalmine_router.observer.examples.reservoir import Routes
from coalmine_router.observer.examples.schema import connected
from coalmine_router.transaction import require_short_log, transaction

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

FILE: Final = "mismatches.db"


@dataclass(frozen=True, slots=True)
class MismatchLimits:
    """How large the file may get, and how many records may wait for it."""

    file_bytes_max: int = 1024 * 1024 * 1024
    queue_records_max: int = 4_096
    queue_bytes_max: int = 32 * 1024 * 1024
    # Of one transaction.
    batch_records_max: int = 256
    batch_bytes_max: int = 8 * 1024 * 1024
    # How long a write waits for a file that somebody else has locked.
    busy_s: float = 1.0
    # How often it is looked for what is too old.
    sweep_s: float = 60.0
    # The same, while the file is in trouble: its end is told by the next look.
    again_s: float = 2.0


class Mismatches:
    """The newest and the worst mismatches of each kind; they survive a restart.

    `routes` are the file's settings by route name.
    """

    def __init__(
        self,
        path: Path,
        *,
        routes: Routes,
        clock: Clock,
        limits: MismatchLimits | None = None,
    ) -> None:
        self._path = path
        self._routes = routes
        self._clock = clock
        self._limits = limits or MismatchLimits()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mismatches")
        self._waiting: deque[tuple[pb.Mismatch, int]] = deque()
        self._database: sqlite3.Connection | None = None
        self._opened: FileIdentity | None = None
        self._is_settled = False
        self._outage = DiskOutage(
            path, "nothing is kept", began="mismatches_not_kept", ended="mismatches_kept_again"
        )
        # Each is counted up by one thread alone, so the differences need no lock.
        self._queued, self._queued_bytes = 0, 0
        self._done, self._done_bytes = 0, 0
        self._results: Counter[str] = Counter()
        self._refused = 0

    async def run(self) -> None:
        """Delete what is too old, at once and every now and then, until cancelled.

        Whether a file in trouble is well again is seen by that too, within seconds.
        """
        while True:
            await self.sweep()
            limits = self._limits
            await asyncio.sleep(limits.again_s if self._outage.trouble else limits.sweep_s)

    async def sweep(self) -> None:
        """Delete what is too old, also of routes that are gone; a file that fails is logged."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._sweep)

    def offer(self, record: pb.Mismatch) -> None:
        """Queue a record for writing, or count it as dropped."""
        size = record.ByteSize()
        if (
            self._queued - self._done >= self._limits.queue_records_max
            or self._queued_bytes - self._done_bytes + size > self._limits.queue_bytes_max
        ):
            self._refused += 1
            return
        self._queued += 1
        self._queued_bytes += size
        self._waiting.append((record, size))
        # One look for each record, and each look takes as many as there are: most find none left.
        self._thread.submit(self._write_waiting)

    async def listed(self, wanted: pb.ListMismatchesRequest) -> list[pb.Mismatch]:
        """Return records without bodies and values, the newest or the worst first.

        A limit of 0 is 20. Raises InvalidRequest for a kind that there isn't, Unavailable where the
        file can't be read.
        """
        reading.check(wanted)
        return await self._asked(
            lambda: reading.listed(self._connected(), wanted, self._clock.wall_ns())
        )

    async def get(self, route: str, record_id: str) -> pb.Mismatch:
        """Return one record, whole. Raises NotFound, or Unavailable."""
        found = await self._asked(
            lambda: reading.got(self._connected(), route, record_id, self._clock.wall_ns())
        )
        if found is None:
            raise NotFound(f"route '{route}' has no kept mismatch '{record_id}'")
        return found

    def totals(self) -> dict[str, int]:
        """Return how many were kept, and how many dropped, by reason.

        Of those kept, `removed_age` and `removed_size` went since: too old, or too many bytes; not
        counted are those that newer or worse ones took the place of.
        """
        return {
            "kept": self._results["kept"],
            "dropped_queue_full": self._refused,
            "dropped_disk": self._results["disk"],
            "removed_age": self._results["age"],
            "removed_size": self._results["size"],
        }

    def trouble(self) -> str:
        """Return what is wrong with the disk, in one line; "" where nothing is."""
        return self._outage.trouble

    async def close(self) -> None:
        """Write what is queued, and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _asked(self, read: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, read)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"kept mismatches can't be read: {error}") from None

    # ------------------------------------------------------------ in the thread

    def _connected(self) -> sqlite3.Connection:
        self._look_for_file()
        if self._database is None:
            # Once a write failed, the next ones don't wait: whoever reads stands behind them.
            patience_s = 0.0 if self._outage.trouble else self._limits.busy_s
            self._database = connected(self._path, patience_s, self._take_in)
            self._opened = identity(self._path)
        if not self._is_settled:
            self._settle(self._database)
        return self._database

    def _look_for_file(self) -> None:
        if self._opened is not None and identity(self._path) != self._opened:
            _log.warning("mismatches_file_gone", path=str(self._path))
            self._disconnect()
            self._opened, self._is_settled = None, False
            drop_journal(self._path)

    def _settle(self, database: sqlite3.Connection) -> None:
        """Apply the settings that this process was started with, before anything is shown."""
        with transaction(database):
            reservoir.apply_settings(database, self._routes)
        _forget_journal(database)
        self._is_settled = True

    def _take_in(self, database: sqlite3.Connection, records: Iterable[pb.Mismatch]) -> None:
        reservoir.insert(database, records, self._routes)

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write_waiting(self) -> None:
        batch, size = self._batch()
        if not batch:
            return
        try:
            self._insert(batch)
        except (sqlite3.Error, OSError) as error:
            self._results["disk"] += len(batch)
            self._note_failing(error)
        else:
            self._results["kept"] += len(batch)
            self._note_working()
        finally:
            self._done += len(batch)
            self._done_bytes += size

    def _batch(self) -> tuple[list[pb.Mismatch], int]:
        """Return the records of the next transaction, and their bytes."""
        batch: list[pb.Mismatch] = []
        size = 0
        while self._waiting and len(batch) < self._limits.batch_records_max:
            if batch and size + self._waiting[0][1] > self._limits.batch_bytes_max:
                break
            record, bytes_ = self._waiting.popleft()
            batch.append(record)
            size += bytes_
        return batch, size

    def _insert(self, batch: list[pb.Mismatch]) -> None:
        database = self._connected()
        require_short_log(database)
        with transaction(database):
            groups = reservoir.insert(database, batch, self._routes)
            reservoir.prune(database, groups, self._routes)
            self._results["size"] += reservoir.shrink(database, self._limits.file_bytes_max)

    def _sweep(self) -> None:
        if not self._path.exists() and not self._outage.trouble:
            return
        try:
            self._results["age"] += self._expire()
        except (sqlite3.Error, OSError) as error:
            self._note_failing(error)
        else:
            self._note_working()

    def _expire(self) -> int:
        database = self._connected()
        with transaction(database):
            removed = reservoir.expire(database, self._clock.wall_ns())
            if self._outage.trouble:
                _rewrite_version(database)
        if removed:
            _forget_journal(database)
        return removed

    def _note_failing(self, error: Exception) -> None:
        self._disconnect()
        self._outage.note(error)

    def _note_working(self) -> None:
        if self._outage.trouble:
            self._outage.note_over()
            self._disconnect()


def _rewrite_version(database: sqlite3.Connection) -> None:
    """Write what is there already: the commit fails as long as the disk takes nothing."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.execute(f"PRAGMA user_version = {version}")


def _forget_journal(database: sqlite3.Connection) -> None:
    """Write the log beside the file back into it: it too holds what was deleted."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

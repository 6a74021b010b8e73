"""The store of examples: a SQLite file, written and read in a thread of its own.

No request waits for it or fails with it: examples that can't be written are counted and logged. Of
many examples it writes few, within seconds, or as soon as somebody reads.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound, Unavailable
from coalmine_router.observer.examples import example_queries, reservoir
from coalmine_router.observer.examples.example_schema import layout
from coalmine_router.observer.examples.reservoir import NumberedRecord, Routes
from coalmine_router.observer.examples.waiting_examples import (
    Example,
    WaitingExamples,
    WaitingLimits,
)
from coalmine_router.state.disk_outage import DiskOutage
from coalmine_router.state.sqlite_file import SqliteFile, transaction

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

FILE: Final = "mismatches.db"


@dataclass(frozen=True, slots=True)
class ExampleLimits:
    """How large the file may get, how much waits for it, and how often it is written to."""

    file_bytes_max: int = 1024 * 1024 * 1024
    waiting: WaitingLimits = field(default_factory=WaitingLimits)
    # The most valuable examples of an interval are written at its end.
    interval_s: float = 5.0
    # How long a write waits for a file that somebody else has locked.
    busy_s: float = 1.0
    # How often expired examples are deleted.
    sweep_s: float = 60.0
    # The same while the file fails: the next sweep shows whether it works again.
    again_s: float = 2.0


class ExampleStore:
    """The newest and the worst mismatches of each kind; they survive a restart.

    `routes` are the file's settings by route name.
    """

    def __init__(
        self,
        path: Path,
        *,
        routes: Routes,
        clock: Clock,
        limits: ExampleLimits | None = None,
    ) -> None:
        self._path = path
        self._routes = routes
        self._clock = clock
        self._limits = limits or ExampleLimits()
        self._file = SqliteFile(path, layout(self._insert_older), thread="mismatches")
        self._waiting = WaitingExamples(self._limits.waiting, clock.monotonic_ns())
        # One batch at a time: while the disk is slow, the other examples still compete.
        self._writing = asyncio.Lock()
        self._has_settings_applied = False
        self._outage = DiskOutage(
            path, "nothing is kept", began="mismatches_not_kept", ended="mismatches_kept_again"
        )
        # Above every sequence in the file: the sequence says which example is newer.
        self._first_sequence = 0
        # The thread's.
        self._results: Counter[str] = Counter()

    async def run(self) -> None:
        """Write the most valuable examples, and delete expired ones, until cancelled.

        This also shows within seconds when a file that failed works again.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_writing())
            tasks.create_task(self._keep_sweeping())

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(self._limits.interval_s)
            await self.write()

    async def _keep_sweeping(self) -> None:
        while True:
            await self.sweep()
            limits = self._limits
            await asyncio.sleep(limits.again_s if self._outage.trouble else limits.sweep_s)

    async def sweep(self) -> None:
        """Delete expired examples, also of routes that are gone; a file that fails is logged."""
        self._waiting.spend(await self._file.run_in_thread(self._try_free_expired_bytes))

    def offer(self, record: pb.Mismatch) -> None:
        """Let a record wait to be written, or count it as passed over or dropped."""
        kept = reservoir.kept_config_of(record.route, self._routes)
        self._waiting.add(record, kept, self._clock.monotonic_ns())

    async def write(self, route: str | None = None) -> None:
        """Write the most valuable of the waiting examples, within the disk's allowance."""
        async with self._writing:
            batch = self._waiting.take(self._clock.monotonic_ns(), route)
            if batch:
                # The batch is written even where the caller is cancelled: it has left the queue.
                writing = asyncio.shield(self._file.run_in_thread(lambda: self._write_batch(batch)))
                self._waiting.spend(await writing)

    async def find(self, wanted: pb.ListMismatchesRequest) -> list[pb.Mismatch]:
        """Return records without bodies and values, the newest or the worst first.

        A limit of 0 is 20. Raises InvalidRequest for a kind that there isn't, Unavailable where the
        file can't be read.
        """
        example_queries.check_request(wanted)
        await self.write(wanted.route)
        return await self._read_in_thread(
            lambda: example_queries.matching_records(self._connect(), wanted, self._clock.wall_ns())
        )

    async def get(self, route: str, record_id: str) -> pb.Mismatch:
        """Return one record, whole. Raises NotFound, or Unavailable."""
        await self.write(route)
        found = await self._read_in_thread(
            lambda: example_queries.record_with_id(
                self._connect(), route, record_id, self._clock.wall_ns()
            )
        )
        if found is None:
            raise NotFound(f"route '{route}' has no kept mismatch '{record_id}'")
        return found

    def totals(self) -> dict[str, int]:
        """Return how many were kept, passed over for others, and dropped, by reason.

        `removed_age` and `removed_size` count kept examples deleted since: expired, or over the
        file's size. Examples that newer or worse ones replaced are not counted.
        """
        return {
            "kept": self._results["kept"],
            "passed_over": self._waiting.passed_over + self._results["passed_over"],
            "dropped_queue_full": self._waiting.refused,
            "dropped_disk": self._results["disk"],
            "removed_age": self._results["age"],
            "removed_size": self._results["size"],
        }

    def trouble(self) -> str:
        """Return what is wrong with the disk, in one line; "" where nothing is."""
        return self._outage.trouble

    async def close(self) -> None:
        """Write all waiting examples that would be kept, and close the file."""
        batch = self._waiting.take_all()
        if batch:
            await self._file.run_in_thread(lambda: self._write_batch(batch))
        await self._file.end()

    async def _read_in_thread(self, read: Callable[[], Result]) -> Result:
        try:
            return await self._file.run_in_thread(read)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"kept mismatches can't be read: {error}") from None

    # ------------------------------------------------------------ in the thread

    def _connect(self) -> sqlite3.Connection:
        if self._file.is_gone():
            _log.warning("mismatches_file_gone", path=str(self._path))
            self._file.forget()
            self._has_settings_applied = False
        # Once a write failed, the next ones don't wait for a lock: readers queue behind them.
        self._file.patience_s = 0.0 if self._outage.trouble else self._limits.busy_s
        database = self._file.open()
        if not self._has_settings_applied:
            self._apply_settings(database)
        return database

    def _apply_settings(self, database: sqlite3.Connection) -> None:
        """Apply the settings that this process was started with, before any example is shown."""
        with transaction(database):
            reservoir.apply_settings(database, self._routes)
            self._first_sequence = reservoir.last_sequence(database)
        _empty_journal(database)
        self._has_settings_applied = True

    def _insert_older(self, database: sqlite3.Connection, records: Iterable[pb.Mismatch]) -> None:
        numbered = (NumberedRecord(number, each) for number, each in enumerate(records, 1))
        reservoir.insert(database, numbered, self._routes)

    def _write_batch(self, batch: Sequence[Example]) -> int:
        """Write a batch; return how many bytes were overwritten beside those that were written."""
        try:
            return self._insert_batch(batch)
        except (sqlite3.Error, OSError) as error:
            self._results["disk"] += len(batch)
            self._note_failure(error)
            return 0

    def _insert_batch(self, batch: Sequence[Example]) -> int:
        self._connect()
        first = self._first_sequence
        records = [NumberedRecord(first + each.rank.number, each.record) for each in batch]
        with self._file.writing() as database:
            free = reservoir.free_bytes(database)
            done = reservoir.write(database, records, self._routes, self._limits.file_bytes_max)
            freed = reservoir.free_bytes(database) - free
        self._results["kept"] += done.kept
        self._results["passed_over"] += len(batch) - done.kept
        self._results["size"] += done.removed_size
        self._note_recovery()
        return max(0, freed)

    def _try_free_expired_bytes(self) -> int:
        """Delete expired examples; return how many bytes were overwritten."""
        if not self._path.exists() and not self._outage.trouble:
            return 0
        try:
            return self._free_expired_bytes()
        except (sqlite3.Error, OSError) as error:
            self._note_failure(error)
            return 0

    def _free_expired_bytes(self) -> int:
        database = self._connect()
        with transaction(database):
            free = reservoir.free_bytes(database)
            removed = reservoir.delete_expired(database, self._clock.wall_ns())
            freed = reservoir.free_bytes(database) - free
            if self._outage.trouble:
                _rewrite_version(database)
        if removed:
            _empty_journal(database)
        self._results["age"] += removed
        self._note_recovery()
        return freed

    def _note_failure(self, error: Exception) -> None:
        self._file.close()
        self._outage.note_failure(error)

    def _note_recovery(self) -> None:
        if self._outage.trouble:
            self._outage.note_success()
            self._file.close()


def _rewrite_version(database: sqlite3.Connection) -> None:
    """Write the version again: the commit fails as long as the disk can't be written to."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.execute(f"PRAGMA user_version = {version}")


def _empty_journal(database: sqlite3.Connection) -> None:
    """Empty the log beside the file, which also holds deleted records."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

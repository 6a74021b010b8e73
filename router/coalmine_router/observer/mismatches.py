"""The kept examples: a SQLite file, written and read in a thread of its own.

Nothing waits for it, and nothing fails with it: what can't be written is counted and logged.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound, Unavailable

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

LISTED_DEFAULT: Final = 20

# The sequence gives the order; clocks may jump.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS mismatch (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  route TEXT NOT NULL,
  candidate TEXT NOT NULL,
  summary BLOB NOT NULL,
  record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS mismatch_of_pair ON mismatch (route, candidate, sequence);
"""
_INSERT: Final = "INSERT INTO mismatch (id, route, candidate, summary, record) VALUES (?,?,?,?,?)"
_PRUNE: Final = """
DELETE FROM mismatch WHERE route = ?1 AND candidate = ?2 AND sequence <= (
  SELECT sequence FROM mismatch WHERE route = ?1 AND candidate = ?2
  ORDER BY sequence DESC LIMIT 1 OFFSET ?3)
"""
_LIST: Final = "SELECT summary FROM mismatch WHERE route = ? ORDER BY sequence DESC"
_GET: Final = "SELECT record FROM mismatch WHERE route = ? AND id = ?"


@dataclass(frozen=True, slots=True)
class MismatchLimits:
    """How many are kept of each route and candidate, and how many may wait for the disk."""

    kept: int = 200
    queue_records_max: int = 256
    queue_bytes_max: int = 32 * 1024 * 1024
    # How long a write waits for a file that somebody else has locked.
    busy_s: float = 1.0


class Mismatches:
    """The newest mismatches; they survive a restart."""

    def __init__(self, path: Path, limits: MismatchLimits | None = None) -> None:
        self._path = path
        self._limits = limits or MismatchLimits()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mismatches")
        self._database: sqlite3.Connection | None = None
        self._failing = False
        # Each is counted up by one thread alone, so the differences need no lock.
        self._queued, self._queued_bytes = 0, 0
        self._done, self._done_bytes = 0, 0
        self._results: Counter[str] = Counter()
        self._refused = 0

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
        self._thread.submit(self._write, record, size)

    async def newest(self, route: str, output: str, limit: int) -> list[pb.Mismatch]:
        """Return records without bodies, newest first; with `output`, only where it differs.

        A limit of 0 is 20. Raises Unavailable where the file can't be read.
        """
        return await self._asked(lambda: self._listed(route, output, limit or LISTED_DEFAULT))

    async def get(self, route: str, record_id: str) -> pb.Mismatch:
        """Return one record with its bodies. Raises NotFound, or Unavailable."""
        found = await self._asked(
            lambda: self._connected().execute(_GET, (route, record_id)).fetchone()
        )
        if found is None:
            raise NotFound(f"route '{route}' has no kept mismatch '{record_id}'")
        return pb.Mismatch.FromString(found[0])

    def totals(self) -> dict[str, int]:
        """Return how many were kept, and how many dropped, by reason."""
        return {
            "kept": self._results["kept"],
            "dropped_queue_full": self._refused,
            "dropped_disk": self._results["disk"],
        }

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
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Once a write failed, the next ones don't wait: whoever reads stands behind them.
            patience_s = 0.0 if self._failing else self._limits.busy_s
            database = sqlite3.connect(self._path, timeout=patience_s)
            try:
                database.execute("PRAGMA journal_mode=WAL")
                # An example lost to a power cut is no harm; the fsyncs would be.
                database.execute("PRAGMA synchronous=NORMAL")
                database.executescript(_SCHEMA)
            except sqlite3.Error:
                database.close()
                raise
            self._database = database
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self, record: pb.Mismatch, size: int) -> None:
        try:
            self._insert(record)
        except (sqlite3.Error, OSError) as error:
            self._results["disk"] += 1
            self._note_failing(error)
        else:
            self._results["kept"] += 1
            self._note_working()
        finally:
            self._done += 1
            self._done_bytes += size

    def _insert(self, record: pb.Mismatch) -> None:
        pair = (record.route, record.candidate)
        row = (record.id, *pair, _summary(record), record.SerializeToString())
        with self._connected() as transaction:
            transaction.execute(_INSERT, row)
            transaction.execute(_PRUNE, (*pair, self._limits.kept))

    def _note_failing(self, error: Exception) -> None:
        self._disconnect()
        if not self._failing:  # once for each outage: mismatches come by the thousand
            _log.warning("mismatches_not_kept", path=str(self._path), error=str(error))
        self._failing = True

    def _note_working(self) -> None:
        if self._failing:
            _log.info("mismatches_kept_again", path=str(self._path))
            self._failing = False
            self._disconnect()

    def _listed(self, route: str, output: str, limit: int) -> list[pb.Mismatch]:
        found: list[pb.Mismatch] = []
        with closing(self._connected().execute(_LIST, (route,))) as rows:
            for (summary,) in rows:
                record = pb.Mismatch.FromString(summary)
                if not output or any(each.output == output for each in record.differences):
                    found.append(record)
                if len(found) == limit:
                    break
        return found


def _summary(record: pb.Mismatch) -> bytes:
    summary = pb.Mismatch()
    summary.CopyFrom(record)
    for name in ("request", "reference_response", "candidate_response"):
        summary.ClearField(name)
    return summary.SerializeToString()

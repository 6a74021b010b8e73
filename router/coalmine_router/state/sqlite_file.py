"""One SQLite file: which it is, of which version, how it is opened, written and put aside.

A store is a path, a `Layout` and its own queries; a `SqliteFile` has the connection and the thread.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

Result = TypeVar("Result")
# Changes the tables, within the transaction of the opening.
Migration = Callable[[sqlite3.Connection], object]

# Ten times what SQLite lets it grow to while nobody else reads.
LOG_BYTES_MAX: Final = 48 * 1024 * 1024
# With the database itself, all that SQLite keeps of it.
_PARTS: Final = ("", "-wal", "-shm")
# Of SQLite's file format: how a file begins, and where `user_version` stands.
_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT: Final = slice(60, 64)
# What SQLite says of a file that another attempt won't read any better.
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class DamagedFile(sqlite3.DatabaseError):
    """The file itself can't be read, and no other attempt will read it any better."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True, slots=True)
class Layout:
    """What a database holds, and how safe what is written to it is.

    The first of the `migrations` makes the tables, each other one brings them from one version to
    the next. `newer` is the error for a file of a later version, with {found} and {known} in it.
    `is_proved`: as it is opened, the file is read through and written to, so that damage, and a
    disk that takes nothing, show at once. `sample`: a query that the newest version answers.
    """

    migrations: Sequence[Migration]
    newer: str
    synchronous: str = "FULL"
    is_proved: bool = True
    needs_log: bool = False
    sample: str = ""
    pragmas: Sequence[str] = ()

    @property
    def version(self) -> int:
        """The newest version."""
        return len(self.migrations)


def migration_of(text: str) -> Migration:
    """Return the migration that runs these statements, each ended by a semicolon."""

    def run_statements(connection: sqlite3.Connection) -> None:
        for statement in filter(str.strip, text.split(";")):
            connection.execute(statement)

    return run_statements


class SqliteFile:
    """One database, opened when it is first used, and again once it was closed.

    But for `run_in_thread`, `begin_anew` and `end`, all of it is for its thread. Raises
    sqlite3.Error, OSError.
    """

    def __init__(self, path: Path, layout: Layout, *, thread: str, patience_s: float = 1.0) -> None:
        self.path = path
        # How long the next connection waits for a file that somebody else has locked.
        self.patience_s = patience_s
        self._layout = layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=thread)
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._begins_anew = False

    def run_in_thread(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Return what `work` returns, or raises, in the file's thread."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def begin_anew(self) -> None:
        """Have what is there called FILE.unreadable before the file is opened next."""
        self._begins_anew = True

    async def end(self) -> None:
        """Close the file, and end its thread."""
        with contextlib.suppress(sqlite3.Error):
            await self.run_in_thread(self.close)
        self._thread.shutdown()

    def open(self) -> sqlite3.Connection:
        """Open the file where it isn't, and return its connection."""
        if self._connection is None:
            if self._begins_anew:
                set_aside(self.path, f"{self.path.name}.unreadable")
                self._begins_anew, self._opened = False, None
            self._connection = open_database(self.path, self._layout, patience_s=self.patience_s)
            self._opened = file_identity(self.path)
        return self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Let the block's writes be one transaction; where it raises, the file is closed."""
        try:
            connection = self.open()
            require_short_log(connection)
            with transaction(connection):
                yield connection
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def reading_only(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to read by, also from a disk that takes nothing."""
        self.path.stat()
        _check_version(self.path, self._layout)
        with contextlib.closing(_open_read_only(self.path)) as connection:
            yield connection

    def is_gone(self) -> bool:
        """Return whether the file that was opened last is no longer at its path.

        It takes whatever is written, and all of that is lost.
        """
        return self._opened is not None and file_identity(self.path) != self._opened

    def forget(self) -> None:
        """Let go of a file that is gone: what is at its path is opened next."""
        self.close()
        self._opened = None
        for suffix in _PARTS[1:]:  # SQLite would take them for the next file's
            with contextlib.suppress(OSError):  # a folder that lets nothing be deleted
                self.path.with_name(self.path.name + suffix).unlink()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# ---------------------------------------------------------------- opening


def open_database(path: Path, layout: Layout, *, patience_s: float) -> sqlite3.Connection:
    """Return a connection in autocommit; a file is made where there is none, an older one migrated.

    A newer coalmine's is left untouched. Raises sqlite3.Error, OSError; DamagedFile for a file that
    is found to be damaged as it is read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_version(path, layout)
    connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None)
    try:
        _prepare(connection, layout)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and is_damage(error):
            raise DamagedFile(str(error)) from None
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file itself is damaged, not that the disk is."""
    # The last byte of a code is the code itself, the others say more of it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _prepare(connection: sqlite3.Connection, layout: Layout) -> None:
    if layout.is_proved:
        (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise DamagedFile(f"damaged: {' '.join(damage.split())}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if layout.needs_log and mode != "wal":
        raise sqlite3.NotSupportedError("the file system doesn't let SQLite write ahead")
    for pragma in (f"synchronous = {layout.synchronous}", *layout.pragmas):
        connection.execute(f"PRAGMA {pragma}")
    # Else nothing is to be written: the file may be locked.
    if layout.is_proved or _version_in(connection) != layout.version:
        with transaction(connection):
            for migration in layout.migrations[_version_in(connection) :]:
                migration(connection)
            connection.execute(f"PRAGMA user_version = {layout.version}")
    try:
        connection.execute(layout.sample).fetchall()
    except sqlite3.OperationalError as error:
        raise DamagedFile(str(error)) from None


def _check_version(path: Path, layout: Layout) -> None:
    found = _version_on_disk(path)
    if found > layout.version:
        raise sqlite3.NotSupportedError(layout.newer.format(found=found, known=layout.version))


def _version_on_disk(path: Path) -> int:
    """Return the version that a database says it has, and change nothing; 0 where there is none."""
    try:
        with path.open("rb") as file:
            header = file.read(_VERSION_AT.stop)
    except FileNotFoundError:
        return 0
    if not header.startswith(_MAGIC):
        return 0
    if not _has_log(path):
        return int.from_bytes(header[_VERSION_AT])
    with contextlib.closing(_open_read_only(path)) as connection:
        return _version_in(connection)


def _version_in(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, to a file that nobody else writes to meanwhile."""
    # Without a log there is nothing that SQLite needs to write beside the file in order to read it.
    options = "mode=ro" if _has_log(path) else "mode=ro&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?{options}", uri=True)


def _has_log(path: Path) -> bool:
    """Return whether there is what SQLite has not yet written back: it overrules the file."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the block's writes be one: on disk once it ends, undone where it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it already
            connection.execute("ROLLBACK")
        raise


def require_short_log(connection: sqlite3.Connection, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Return where a file's write-ahead log is short; one that can be written back is.

    It grows for as long as another program stays in a transaction: without an end, it would fill
    the disk. Raises sqlite3.OperationalError.
    """
    if _log_bytes(connection) <= bytes_max:
        return
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")  # whoever reads may take minutes
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
    if (size := _log_bytes(connection)) > bytes_max:
        raise sqlite3.OperationalError(
            f"its log beside it has {size / 2**20:.0f} MiB: "
            "another program stays in a transaction on the file"
        )


def _log_bytes(connection: sqlite3.Connection) -> int:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    try:
        return Path(f"{path}-wal").stat().st_size if path else 0
    except OSError:
        return 0


# ---------------------------------------------------------------- which file it is


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file: no other has both while it is open. None: it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path, name: str) -> None:
    """Call a database, and what belongs to it, `name` instead. Raises OSError."""
    for suffix in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(path.with_name(name + suffix))

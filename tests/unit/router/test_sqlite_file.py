"""The log beside a database, which another program can keep from being written back."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coalmine_router.sqlite_file import require_short_log, transaction

BOUND = 256 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.db"


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=1.5)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (body BLOB)")
        yield database


def write(database: sqlite3.Connection) -> None:
    require_short_log(database, BOUND)
    with transaction(database):
        database.execute("INSERT INTO t VALUES (randomblob(100000))")
        database.execute("DELETE FROM t")


def write_often(database: sqlite3.Connection) -> None:
    for _ in range(50):
        write(database)


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_while_another_program_reads_the_log_stays_bounded_and_then_heals(
    path: Path, database: sqlite3.Connection
) -> None:
    write(database)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="stays in a transaction on the file"):
            write_often(database)
        refused_at = log_bytes(path)
        with pytest.raises(sqlite3.OperationalError, match="its log beside it has 0 MiB"):
            write(database)
        assert log_bytes(path) == refused_at < 2 * BOUND
        reader.execute("COMMIT")
    write(database)
    assert log_bytes(path) < BOUND
    assert database.execute("PRAGMA busy_timeout").fetchone() == (1500,), "as patient as before"


def test_a_log_that_nobody_reads_is_written_back(path: Path, database: sqlite3.Connection) -> None:
    database.execute("PRAGMA wal_autocheckpoint = 0")
    write_often(database)
    assert log_bytes(path) < 2 * BOUND


def test_a_database_without_a_file_has_no_log() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute("CREATE TABLE t (body BLOB)")
        write(database)

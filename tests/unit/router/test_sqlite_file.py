"""One SQLite file: opened, migrated, put aside; and its log, which another program can hold up."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coalmine_router.state.sqlite_file import (
    DamagedFile,
    Layout,
    SqliteFile,
    migration_of,
    require_short_log,
    transaction,
)

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


# ---------------------------------------------------------------- a file that stays in use


MAKE = migration_of("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);")
WIDEN = migration_of("ALTER TABLE t ADD COLUMN b INTEGER;")
OLDER = Layout((MAKE,), "version {found} is newer than {known}")
NEWER = Layout((MAKE, WIDEN), "version {found} is newer than {known}")


@contextmanager
def opened(path: Path, layout: Layout) -> Iterator[SqliteFile]:
    file = SqliteFile(path, layout, thread="test", patience_s=0.0)
    yield file
    file.close()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as other:
        return int(other.execute("PRAGMA user_version").fetchone()[0])


def test_a_file_is_made_with_its_folder_and_an_older_one_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    path = tmp_path / "folder" / "it.db"
    with opened(path, OLDER) as file:
        assert file.open().execute("SELECT * FROM t").fetchall() == [(1,)]
    assert version(path) == 1
    with opened(path, NEWER) as file:
        assert file.open().execute("SELECT * FROM t").fetchall() == [(1, None)]
    assert version(path) == 2


def test_a_migration_that_fails_leaves_the_file_at_its_version(path: Path) -> None:
    with opened(path, OLDER) as file:
        file.open()
    wrong = Layout((MAKE, WIDEN, migration_of("ALTER TABLE nix ADD COLUMN c;")), "")
    with opened(path, wrong) as file, pytest.raises(sqlite3.OperationalError, match="nix"):
        file.open()
    assert version(path) == 1
    with opened(path, OLDER) as file:
        assert file.open().execute("SELECT * FROM t").fetchall() == [(1,)]


def test_a_newer_file_is_refused_by_both_versions_and_stays_as_it_is(path: Path) -> None:
    with opened(path, NEWER) as file:
        file.open()
    before = path.read_bytes()
    with opened(path, OLDER) as file:
        with pytest.raises(sqlite3.NotSupportedError, match=r"^version 2 is newer than 1$"):
            file.open()
        with pytest.raises(sqlite3.NotSupportedError), file.reading_only():
            pass
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_damaged_and_can_be_put_aside(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with opened(path, OLDER) as file:
        with pytest.raises(DamagedFile, match="not a database"):
            file.open()
        file.begin_anew()
        assert file.open().execute("SELECT * FROM t").fetchall() == [(1,)]
    assert path.with_name("it.db.unreadable").read_bytes() == b"no database" * 100


def test_a_file_that_lacks_what_its_version_has_is_damaged(path: Path) -> None:
    with opened(path, OLDER) as file:
        file.open().execute("DROP TABLE t")
    sampled = replace(OLDER, sample="SELECT a FROM t LIMIT 1")
    with opened(path, sampled) as file, pytest.raises(DamagedFile, match="no such table: t"):
        file.open()


def test_writes_that_fail_are_undone_and_the_next_ones_find_the_file_open_again(
    path: Path,
) -> None:
    def write_half(file: SqliteFile) -> None:
        with file.writing() as connection:
            connection.execute("INSERT INTO t VALUES (2)")
            connection.execute("INSERT INTO nix VALUES (3)")

    with opened(path, OLDER) as file:
        with pytest.raises(sqlite3.OperationalError, match="nix"):
            write_half(file)
        with file.writing() as connection:
            connection.execute("INSERT INTO t VALUES (4)")
        with file.reading_only() as connection:
            assert connection.execute("SELECT * FROM t").fetchall() == [(1,), (4,)]


def test_a_file_that_is_gone_is_known_to_be_and_another_one_begins(path: Path) -> None:
    with opened(path, OLDER) as file:
        assert not file.is_gone(), "it was never open"
        file.open()
        assert not file.is_gone()
        path.unlink()
        assert file.is_gone()
        file.forget()
        assert not path.with_name("it.db-wal").exists()
        assert file.open().execute("SELECT * FROM t").fetchall() == [(1,)]
        assert not file.is_gone()


@pytest.mark.parametrize("is_proved", [True, False])
def test_only_a_file_that_is_proved_as_it_is_opened_waits_for_another_writer(
    path: Path, is_proved: bool
) -> None:
    with opened(path, OLDER) as file:
        file.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with opened(path, replace(OLDER, is_proved=is_proved)) as file:
            if is_proved:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    file.open()
            else:
                assert file.open().execute("SELECT * FROM t").fetchall() == [(1,)]


async def test_work_is_done_in_the_files_own_thread_until_it_ends(path: Path) -> None:
    file = SqliteFile(path, OLDER, thread="its-own")
    connection = await file.run_in_thread(file.open)
    assert await file.run_in_thread(lambda: threading.current_thread().name) == "its-own_0"
    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        connection.execute("SELECT * FROM t")
    await file.end()
    with pytest.raises(RuntimeError, match="shutdown"):
        await file.run_in_thread(file.open)

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coalmine.errors import StartError
from coalmine_server.packaging.placement import (
    LOCK_FILE,
    lock_repository,
    move_folder,
    replace_text,
    scratch_folder,
    write_files,
)

HOLDS = """
import pathlib, sys
from coalmine_server.packaging.placement import lock_repository, scratch_folder
with {block}(pathlib.Path(sys.argv[1]), wait_s=10):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def another(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is inside `lock_repository`, until it is stopped or killed."""
    yield from holding("lock_repository", tmp_path)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is inside `scratch_folder`."""
    yield from holding("scratch_folder", tmp_path)


def holding(block: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS.format(block=block), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def test_one_that_is_locked_by_another_process_is_refused_after_the_wait(
    tmp_path: Path, another: subprocess.Popen[str]
) -> None:
    with pytest.raises(StartError) as refused, lock_repository(tmp_path, wait_s=0.1):
        pass
    assert str(refused.value) == (
        f"{tmp_path}: somebody else has been changing it for 0.1 s (holds {LOCK_FILE}); try again"
    )


def test_a_killed_process_holds_the_lock_no_more(
    tmp_path: Path, another: subprocess.Popen[str]
) -> None:
    another.kill()
    with lock_repository(tmp_path, wait_s=10):
        assert another.wait(10) == -signal.SIGKILL


def test_a_lock_is_free_once_the_other_lets_go(
    tmp_path: Path, another: subprocess.Popen[str]
) -> None:
    another.communicate()
    assert another.returncode == 0
    with lock_repository(tmp_path, wait_s=10):
        pass


def hidden(root: Path) -> set[str]:
    return {each.name for each in root.iterdir()} - {LOCK_FILE}


def test_a_scratch_folder_is_gone_at_the_end_whatever_the_end(tmp_path: Path) -> None:
    root = tmp_path / "new" / "models"

    def fail() -> None:
        with scratch_folder(root, wait_s=1) as folder:
            write_files(folder / "model", {"model.pt": b"m"})
            assert hidden(root) == {folder.name}
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert hidden(root) == set()


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    [left] = hidden(tmp_path)
    writer.kill()
    writer.wait()
    with scratch_folder(tmp_path, wait_s=10) as folder:
        assert hidden(tmp_path) == {folder.name}
        assert folder.name != left


def test_what_a_living_process_writes_is_left_alone(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    [other] = hidden(tmp_path)
    with scratch_folder(tmp_path, wait_s=10) as folder:
        assert hidden(tmp_path) == {other, folder.name}


def test_a_replaced_file_keeps_its_mode_and_a_new_one_is_as_others_are(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "config.yaml").chmod(0o640)
    with scratch_folder(tmp_path, wait_s=1) as folder:
        replace_text(tmp_path / "config.yaml", "a: 2\n", by_way_of=folder)
        write_files(folder / "model" / "1", {"model.pt": b"m"})
        move_folder(folder / "model", tmp_path / "m")
    assert (tmp_path / "config.yaml").read_text() == "a: 2\n"
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o640
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o777 & ~umask
    assert (tmp_path / "m" / "1" / "model.pt").read_bytes() == b"m"


def test_a_folder_that_is_there_is_not_moved_over(tmp_path: Path) -> None:
    write_files(tmp_path / "m" / "1", {"model.pt": b"first"})
    with scratch_folder(tmp_path, wait_s=1) as folder:
        write_files(folder / "1", {"model.pt": b"second"})
        with pytest.raises(OSError, match="not empty") as refused:
            move_folder(folder / "1", tmp_path / "m" / "1")
    assert refused.value.errno == errno.ENOTEMPTY
    assert (tmp_path / "m" / "1" / "model.pt").read_bytes() == b"first"

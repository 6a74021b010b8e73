"""Who may open what is kept: the modes of a folder and of its files, old and new."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.process.private_folder import open_private
from coalmine.spans.span_exporter import open_exporters
from coalmine_router.state.state_folder import open_state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_open(folder: Path, *names: str) -> None:
    """Make what an older coalmine left."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name in names:
        (folder / name).touch()
        (folder / name).chmod(0o644)


def test_a_new_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    with capture_logs() as logs:
        open_private(tmp_path / "state", ["*"])
    assert mode(tmp_path / "state") == 0o700
    assert logs == []


@pytest.mark.parametrize(
    "name",
    [
        *("control.db", "control.db-wal", "evidence.db-shm", "mismatches.db", "control.lock"),
        *("evidence.db.unreadable", "route-table.pb", "route-table.pb.77", "control.sock"),
        *("config-in-force.yaml", "processes.json", "outputs-known.json"),
    ],
)
def test_an_older_state_folder_is_tightened_with_a_line(tmp_path: Path, name: str) -> None:
    left_open(tmp_path / "state", name)
    with capture_logs() as logs:
        open_state(tmp_path / "state")
        open_state(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / name) == 0o600
    assert [(each["event"], each["paths"]) for each in logs] == [("modes_tightened", 2)]


def test_an_older_folder_of_traces_is_tightened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    left_open(tmp_path / "traces", "traces-000001.jsonl")
    (exporter,) = open_exporters(tmp_path / "traces")
    exporter.shutdown()
    assert mode(tmp_path / "traces") == 0o700
    assert mode(tmp_path / "traces" / "traces-000001.jsonl") == 0o600


def test_what_is_not_the_routers_stays_as_it_is(tmp_path: Path) -> None:
    left_open(tmp_path / "state", "notes.txt")
    left_open(tmp_path, "elsewhere.db")
    (tmp_path / "state" / "control.db").symlink_to(tmp_path / "elsewhere.db")
    open_state(tmp_path / "state")
    assert mode(tmp_path / "state" / "notes.txt") == 0o644
    assert mode(tmp_path / "elsewhere.db") == 0o644


def test_a_folder_that_everybody_shares_stays_so_and_its_files_are_ours(tmp_path: Path) -> None:
    left_open(tmp_path / "state", "control.db")
    (tmp_path / "state").chmod(0o1777)
    with capture_logs() as logs:
        open_state(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o1777
    assert mode(tmp_path / "state" / "control.db") == 0o600
    assert [each["event"] for each in logs] == ["folder_is_shared", "modes_tightened"]


def test_a_process_makes_files_sockets_and_databases_for_this_user_alone(tmp_path: Path) -> None:
    program = """
import pathlib, socket, sqlite3
from coalmine.process.lifecycle import run
async def body(stop):
    pathlib.Path("new/deeper").mkdir(parents=True)
    pathlib.Path("file").write_text("x")
    socket.socket(socket.AF_UNIX).bind("socket")
    base = sqlite3.connect("base.db", isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("CREATE TABLE t (a)")
    pathlib.Path("modes").write_text(
        " ".join(f"{each.stat().st_mode & 0o777:o}" for each in pathlib.Path().rglob("*")
        if each.is_file() or each.is_socket()))
run(body)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, umask=0o022)
    seen = (tmp_path / "modes").read_text().split()
    assert len(seen) >= 5, "a file, a socket, a database, what SQLite has beside it"
    assert not any(int(each, 8) & 0o077 for each in seen)
    assert mode(tmp_path / "new") == mode(tmp_path / "new" / "deeper") == 0o700

"""A start that Ctrl-C cuts short while children start, and programs whose streams go away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.doubles.processes import Started, alive, begin
from tests.doubles.server_process import written
from tests.doubles.waiting import until
from tests.doubles.worker_processes import PORTS

ROUTER = """
listen: 127.0.0.1:0
control: {listen: "127.0.0.1:0", state: state}
http: 127.0.0.1:0
backends: {one: {targets: ["127.0.0.1:9"]}}
routes: [{name: m, match: {model: m}, variants: {stable: {backend: one}}}]
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("tests.models", tmp_path_factory.mktemp("models"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "router.yaml"
    file.write_text(ROUTER)
    return file


def is_importing(pid: int, library: str) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text()


@contextmanager
def interrupted(*arguments: str | Path, folder: Path) -> Iterator[Started]:
    """Yield a program from its first moment; after the block, expect Ctrl-C to leave nothing."""
    # A short path: that of a socket in it is bounded.
    with TemporaryDirectory(prefix="c-") as temporary:
        running = begin(*arguments, folder=folder, environment={"TMPDIR": temporary})
        try:
            yield running
            children = list(running.children())
            assert running.stop(signal.SIGINT) == 0
            assert not any(alive(pid) for pid in children)
            assert os.listdir(temporary) == [], "neither sockets nor folders"  # noqa: PTH208
            assert "Traceback" not in running.log.read_text()
        finally:
            running.kill()


@pytest.mark.parametrize("library", ["", "libtorch_cpu"])
def test_ctrl_c_while_workers_start_leaves_nothing(
    models: Path, tmp_path: Path, library: str
) -> None:
    words = ("server", "run", "--model-repository", models, *PORTS, "--workers", "2")
    with interrupted(*words, folder=tmp_path) as running:
        until(lambda: any(is_importing(pid, library) for pid in running.children()), 60)


@pytest.mark.parametrize("kind", ["control", "proxy"])
def test_ctrl_c_while_the_routers_processes_start_leaves_nothing(
    config: Path, tmp_path: Path, kind: str
) -> None:
    with interrupted("router", "run", "--config", config, folder=tmp_path) as running:
        until(lambda: any(kind in words for words in running.children().values()), 60)


def catches_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(each for each in status.splitlines() if each.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGHUP - 1)


def test_hangups_from_a_routers_first_moment_on_are_one_reload_once_it_serves(
    config: Path, tmp_path: Path
) -> None:
    with interrupted("router", "run", "--config", config, folder=tmp_path) as running:
        pid = running.process.pid
        until(lambda: catches_hangup(pid), 60)
        assert not is_importing(pid, "cygrpc"), "its first moment is before that"
        while "workers_rolled" not in running.log.read_text():
            if "proxy-0" not in running.log.read_text():
                running.process.send_signal(signal.SIGHUP)
            assert running.process.poll() is None, running.log.read_text()
            time.sleep(0.02)
        assert running.log.read_text().count("reload_asked") == 1


# ---------------------------------------------------------------- streams


@contextmanager
def run_by_shell(line: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sh", "-c", f"exec {sys.executable} -m {line}"], cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def test_a_router_runs_without_any_stream(config: Path, tmp_path: Path) -> None:
    line = f"coalmine_client router run --config {config} <&- >&- 2>&-"
    in_force = tmp_path / "state" / "config-in-force.yaml"
    with run_by_shell(line, tmp_path) as process:
        until(in_force.exists, 60)
        process.terminate()
        assert process.wait(30) == 0


def test_a_reader_of_log_and_announcement_that_is_gone_stops_no_server(
    models: Path, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    command = ("server", "run", "--model-repository", str(models), *PORTS, "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "coalmine_client", *command], stdout=writer, stderr=writer
    )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as log:
            assert b"process_started" in log.readline()
        running = Started(process, tmp_path / "none")  # type: ignore[arg-type]
        until(lambda: len(running.children()) == 2, 60)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)

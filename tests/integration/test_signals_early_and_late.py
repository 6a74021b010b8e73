"""Ctrl-C and SIGTERM before a process serves and after it has: no traceback, and a known exit code.

The signal comes at a module's import, or in what Python does last, never after so many seconds.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.processes import begin
from tests.doubles.server_process import written
from tests.doubles.waiting import until
from tests.needs import lack, require

EARLY = """
import os, runpy, signal, sys
program, early, name, how, *arguments = sys.argv[1:]
def come():
    os.kill(os.getpid(), getattr(signal, name))
class Unraisable:
    def __del__(self):  # an exception here is told of, and lost
        come()
class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == early:
            come() if how == "plain" else Unraisable()
sys.meta_path.insert(0, Signal())
sys.argv = [program, *arguments]
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""

LATE = """
import atexit, os, signal, sys
from coalmine.process.lifecycle import run
async def main(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
atexit.register(os.kill, os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(run(main))
"""

SERVER = ("coalmine_client", "server", "run", "--model-repository", ".")
WORKER = ("coalmine_server", "nowhere.json", "--with-parent")
ROUTER = ("coalmine_client", "router", "run", "--config", "router.yaml")
PROXY = ("coalmine_router", "proxy")
CHECK = ("coalmine_client", "server", "check", ".")
DEMO = ("coalmine_client", "demo")


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a model whose forward begins, and never returns."""
    return written("tests.doubles.printing_models", tmp_path_factory.mktemp("models")) / "hanging"


def ended(
    code: str, *arguments: str, folder: Path, before: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Return the exit code, and all that it says."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("program", "module", "how"),
    [
        (SERVER, "typer", "plain"),
        (SERVER, "coalmine_server.cli.server_verbs", "unraisable"),
        (SERVER, "torch", "plain"),
        (SERVER, "coalmine_server.app", "unraisable"),
        (WORKER, "structlog", "plain"),
        (ROUTER, "coalmine_router.app", "unraisable"),
        (PROXY, "coalmine_router.cli", "plain"),
        (CHECK, "coalmine_server.packaging.repository_check", "unraisable"),
        (DEMO, "coalmine_demo.command", "plain"),
    ],
)
def test_ctrl_c_while_a_program_is_imported_is_quiet_and_130(
    program: tuple[str, ...], module: str, how: str, tmp_path: Path
) -> None:
    name, *arguments = program
    assert ended(EARLY, name, module, "SIGINT", how, *arguments, folder=tmp_path) == (130, "")


@pytest.mark.parametrize(
    ("program", "module"), [(SERVER, "torch"), (WORKER, "structlog"), (PROXY, "grpc")]
)
def test_sigterm_while_a_program_is_imported_is_quiet_and_143(
    program: tuple[str, ...], module: str, tmp_path: Path
) -> None:
    name, *arguments = program
    assert ended(EARLY, name, module, "SIGTERM", "plain", *arguments, folder=tmp_path) == (143, "")


@pytest.mark.parametrize(
    "module", ["typer", "coalmine_client.cli.root", "coalmine_router.cli", "grpc", "uvloop"]
)
def test_sighup_while_a_router_is_imported_does_not_end_it(module: str, tmp_path: Path) -> None:
    name, *arguments = ROUTER
    words = (name, module, "SIGHUP", "plain", *arguments)
    assert ended(EARLY, *words, folder=tmp_path) == (
        2,
        "coalmine: router.yaml: no such file or directory\n",
    )


@pytest.mark.parametrize(
    ("program", "module"),
    [
        (SERVER, "typer"),
        (SERVER, "torch"),
        (PROXY, "structlog"),
        (PROXY, "coalmine_router.proxy_app"),
        (CHECK, "typer"),
        (DEMO, "coalmine_demo.command"),
        (("coalmine_client", "routes"), "coalmine_client.cli.routes.routes"),
    ],
)
def test_sighup_while_any_other_program_is_imported_ends_it(
    program: tuple[str, ...], module: str, tmp_path: Path
) -> None:
    name, *arguments = program
    assert ended(EARLY, name, module, "SIGHUP", "plain", *arguments, folder=tmp_path) == (
        -signal.SIGHUP,
        "",
    )


def test_sighup_that_is_ignored_from_the_start_stays_so(tmp_path: Path) -> None:
    ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN){EARLY}"
    words = ("coalmine_client", "typer", "SIGHUP", "plain", "--version")
    assert ended(ignoring, *words, folder=tmp_path)[0] == 0


def test_sigterm_ends_the_first_process_of_a_container_too_while_it_is_imported(
    tmp_path: Path,
) -> None:
    require("unshare")
    alone = ("unshare", "--user", "--map-root-user", "--pid", "--fork")
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        lack("unshare", "there is no right to have process ids of its own here")
    name, *arguments = SERVER
    words = (name, "torch", "SIGTERM", "plain", *arguments)
    assert ended(EARLY, *words, folder=tmp_path, before=alone) == (143, "")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_check_ends_at_once_in_a_forward_that_does_not_return(
    hanging: Path, sign: signal.Signals, tmp_path: Path
) -> None:
    running = begin("server", "check", hanging, folder=tmp_path)
    try:
        until(lambda: "forward begun" in running.log.read_text(), 60)
        assert running.stop(sign) == -sign
        assert "Traceback" not in running.log.read_text()
    finally:
        running.kill()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_loop_has_ended_is_a_second_one(name: str, tmp_path: Path) -> None:
    assert ended(LATE, name, folder=tmp_path) == (1, "")


def test_signals_that_are_ignored_from_the_start_stay_so_until_it_serves(tmp_path: Path) -> None:
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN){EARLY}"
    words = ("coalmine_client", "typer", "SIGINT", "plain", "--version")
    code, said = ended(ignoring, *words, folder=tmp_path)
    assert (code, said.partition(" ")[0]) == (0, "coalmine")


ALL = "<&- >&- 2>&-"


@pytest.mark.parametrize(
    ("words", "closed"),
    [
        ("coalmine_client server run --model-repository nowhere", "<&-"),
        ("coalmine_client server run --model-repository nowhere", ">&-"),
        ("coalmine_client server run --model-repository nowhere", "2>&-"),
        ("coalmine_client server run --model-repository nowhere --workers 2", ALL),
        ("coalmine_client server check nowhere --json", ALL),
        ("coalmine_client router run --config nowhere.yaml", ALL),
        ("coalmine_client router check nowhere.yaml", ALL),
    ],
)
def test_closed_streams_change_nothing_of_a_start_that_fails(
    words: str, closed: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m {words} {closed}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert ("coalmine: " in done.stderr) == ("2>&-" not in closed)

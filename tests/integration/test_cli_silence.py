"""Verbs against a control API that says nothing, and against one that takes its time."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coalmine_client.cli.root import program
from tests.doubles.control import FakeControl, serving

VERBS = [
    "routes",
    "status digits",
    "status digits --watch",
    "status digits --until-verdict",
    "history digits",
    "trials digits",
    "mismatches digits",
    "mismatches digits --show m-17",
    "weights digits canary=10",
    "shadow digits int8=25%",
]
# Three seconds, and what a machine adds that does other things beside.
WITHIN_S = 5.0

_ROOT = Path(__file__).parents[2]
_HANGING_IN_TIME = """
import threading
from tests.doubles.control import FakeControl, serving

control = FakeControl()
control.watch_ends = False
with serving(control) as address:
    print(address, flush=True)
    threading.Event().wait()
"""


def run(line: str, address: str) -> tuple[Result, float]:
    """Run `coalmine LINE`; return what came of it, and the seconds it took."""
    began_s = time.monotonic()
    result = CliRunner().invoke(program(), line.split(), env={"COALMINE_CONTROL": address})
    return result, time.monotonic() - began_s


@pytest.fixture
def accepting() -> Iterator[str]:
    """An address that takes connections, and says nothing on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that answers no attempt to connect."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        place = server.getsockname()
        for _ in range(4):  # more than wait for it to accept
            each = stack.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(place)
        yield f"127.0.0.1:{place[1]}"


@contextlib.contextmanager
def a_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a control API in a process of its own, and its address."""
    command = [sys.executable, "-c", _HANGING_IN_TIME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def check_silent(line: str, result: Result, took_s: float, address: str) -> None:
    verb = line.split(maxsplit=1)[0]
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"coalmine: {verb}: the router's control API at {address} does not answer: "
        "nothing came within 1.5 s\n"
    )
    assert took_s < WITHIN_S


@pytest.mark.parametrize("line", VERBS)
def test_a_router_that_accepts_and_says_nothing_is_told_in_time(line: str, accepting: str) -> None:
    check_silent(line, *run(line, accepting), accepting)


@pytest.mark.parametrize("line", ["routes", "weights digits canary=10"])
def test_an_address_that_answers_nothing_at_all_is_told_in_time(line: str, black_hole: str) -> None:
    check_silent(line, *run(line, black_hole), black_hole)


def test_a_router_that_hangs_is_told_in_time_and_also_by_a_watch_that_had_begun() -> None:
    with a_process() as (router, address):
        watch = subprocess.Popen(
            [sys.executable, "-m", "coalmine_client", "status", "digits", "--watch", "--json"],
            env={"COALMINE_CONTROL": address, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        assert watch.stdout.readline()
        router.send_signal(signal.SIGSTOP)
        check_silent("status digits", *run("status digits", address), address)
        _, said = watch.communicate(timeout=20)
        assert "does not answer: nothing came within 5.0 s" in said
        assert watch.returncode == 1


def test_a_wait_for_a_verdict_outlasts_a_router_that_hangs_until_it_is_started_again() -> None:
    with a_process() as (router, address):
        threading.Timer(0.5, router.send_signal, [signal.SIGSTOP]).start()
        result, took_s = run("status digits --until-verdict --timeout 4s", address)
    assert result.exit_code == 4, result.stderr
    assert took_s >= 4


def test_a_change_that_takes_its_time_is_waited_for_while_the_router_lives() -> None:
    class Slow(FakeControl):
        def SetWeights(self, request: Any, context: Any) -> Any:
            released.wait(20)
            return super().SetWeights(request, context)

    released = threading.Event()
    with serving(Slow()) as address:
        threading.Timer(3.0, released.set).start()
        result, took_s = run("weights digits canary=10", address)
    assert result.exit_code == 0, result.stderr
    assert took_s >= 3

"""A reload gives the control process's place to another: no operator notices, whatever dies."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine_client.cli.root import program
from tests.doubles.processes import Started, alive
from tests.doubles.router_setup import caller_of, configuration, control_of, router
from tests.doubles.waiting import until

ASKED_EACH_S = 0.1
# So slowly that no copy has to be dropped, however busy the machine is.
CALLED_EACH_S = 0.05
# Nobody may have to wait for longer than it takes to say that nobody answers.
WORST_S = 3.0


def logged(running: Started, event: str) -> int:
    return running.log.read_text().count(f'"{event}"')


def controls(running: Started) -> dict[int, list[str]]:
    return {pid: words for pid, words in running.children().items() if "control" in words}


def standing_by(running: Started) -> list[int]:
    """Return the control processes that were started to take over."""
    return [pid for pid, words in controls(running).items() if "--stand-by" in words]


def verb(line: str, running: Started) -> tuple[str, float]:
    """Return what a verb complains of, and how long it took."""
    began_s = time.monotonic()
    env = {"COALMINE_CONTROL": running.address("control")}
    result = CliRunner().invoke(program(), line.split(), env=env)
    return (result.stderr or repr(result)) if result.exit_code else "", time.monotonic() - began_s


@pytest.fixture
def file(server: Started, tmp_path: Path) -> Path:
    return configuration(tmp_path, server.address("grpc"))


def add_route(file: Path, name: str) -> None:
    content = yaml.safe_load(file.read_text())
    of = {"backend": "blue", "model": "digits"}
    variants = {"stable": {**of, "version": "1"}, "canary": {**of, "version": "2"}}
    added = {"name": name, "match": {"model": name}, "variants": variants}
    file.write_text(yaml.safe_dump({**content, "routes": [*content["routes"], added]}))


def reload(running: Started, event: str = "workers_rolled") -> None:
    """Send SIGHUP, and return once the router has said what came of it."""
    before = logged(running, event)
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: logged(running, event) > before, 60)


@contextmanager
def reloading(running: Started, file: Path) -> Iterator[threading.Thread]:
    """Yield the thread that reloads three times, with another route each time."""

    def thrice() -> None:
        for n in range(3):
            add_route(file, f"letters-{n}")
            reload(running)

    thread = threading.Thread(target=thrice)
    thread.start()
    yield thread
    thread.join()


def test_every_verb_is_answered_in_time_over_three_reloads(file: Path) -> None:
    said: dict[str, float] = {}
    asked = 0
    with router(file) as running:
        first = set(controls(running))
        with reloading(running, file) as thread:
            while thread.is_alive():
                asked += 1
                lines = [f"weights digits canary={asked % 50}", "routes", "history digits"]
                for line in lines:
                    wrong, took_s = verb(line, running)
                    said[wrong] = max(said.get(wrong, 0.0), took_s)
                time.sleep(ASKED_EACH_S)
        assert logged(running, "config_taken") == 3
        assert logged(running, "process_died") == logged(running, "replacement_failed") == 0
        until(lambda: len(controls(running)) == 1, 10)
        assert not first & set(controls(running))
        assert verb("weights letters-2 canary=1", running)[0] == ""
    assert set(said) == {""}, said
    assert said[""] < WORST_S
    assert asked > 10


def test_no_report_is_lost_over_three_reloads(server: Started, tmp_path: Path) -> None:
    file = configuration(tmp_path, server.address("grpc"), shadows={"canary": 100})
    calls = 0
    with router(file) as running:
        with caller_of(running) as caller, reloading(running, file) as thread:
            while thread.is_alive():
                caller.infer()
                calls += 1
                time.sleep(CALLED_EACH_S)
        with control_of(running) as control:
            until(lambda: compared(control) >= calls, 20)
            assert compared(control) == calls


def compared(control: RouteControlStub) -> int:
    """Return how many copies were compared, over all reloads."""
    found = control.GetRoute(pb.GetRouteRequest(route="digits"), timeout=10).comparisons
    return sum(each.match + each.mismatch for each in found)


def test_one_that_is_killed_while_it_stands_by_costs_nothing(file: Path) -> None:
    with router(file) as running:
        before = set(controls(running))
        add_route(file, "letters")
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: bool(standing_by(running)), 20)
        os.kill(standing_by(running)[0], signal.SIGKILL)
        until(lambda: logged(running, "config_refused") == 1, 20)
        assert set(controls(running)) == before
        assert verb("weights digits canary=1", running)[0] == ""
        reload(running)
        assert verb("weights letters canary=1", running)[0] == ""


def test_an_old_one_that_hangs_is_killed_and_the_next_one_serves(file: Path) -> None:
    with router(file) as running:
        [old] = controls(running)
        add_route(file, "letters")
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: bool(standing_by(running)), 20)
        os.kill(old, signal.SIGSTOP)
        until(lambda: logged(running, "config_taken") == 1, 30)
        assert logged(running, "process_killed") == 1
        assert not alive(old)
        assert verb("weights letters canary=1", running)[0] == ""


@pytest.mark.parametrize("again", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_in_the_middle_is_followed(file: Path, again: signal.Signals) -> None:
    with router(file) as running:
        add_route(file, "letters")
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: bool(standing_by(running)), 20)
        every = set(running.children())
        if again is signal.SIGTERM:
            assert running.stop() == 0
            assert not any(map(alive, every))
            return
        add_route(file, "figures")
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: logged(running, "workers_rolled") == 2, 60)
        assert verb("weights figures canary=1", running)[0] == ""
        assert logged(running, "process_died") == 0

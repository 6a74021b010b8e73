"""A kept process that gives its place to another: replaced, succeeded, and where that fails."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.process.child_process import Child, Command
from tests.doubles.waiting import eventually

WAITS = "sys.stdin.read()"
# Says the word that it is given as its last argument but one: the last is ours.
READY = """
import json, os, signal, sys, time
print(json.dumps({"event": "ready", "pid": os.getpid(), "word": sys.argv[1]}), flush=True)
"""
SILENT = "import sys\n" + WAITS
SPENT = "raise SystemExit(2)"


def command(word: str = "first", program: str = READY + WAITS) -> Command:
    return Command("proxy-0", (word,), program=(sys.executable, "-c", program))


@contextlib.asynccontextmanager
async def kept(command: Command, *, patience_s: float = 10.0) -> AsyncIterator[Child]:
    """Yield a child that is ready; at the end it has been ended."""
    child = Child(command, patience_s)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.keep_running())
        async with asyncio.timeout(30):
            await child.ready.wait()
            yield child
            await child.end()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()


def events(logs: Sequence[object], name: str) -> int:
    return sum(isinstance(each, dict) and each["event"] == name for each in logs)


async def test_the_new_one_is_ready_before_the_old_one_is_asked_to_end() -> None:
    # It looks for its predecessor when it is ready, and says whether it saw it.
    sees = READY.replace('"word": sys.argv[1]', '"word": os.path.exists(sys.argv[1])')
    async with kept(command()) as child:
        old = child.pid
        assert await child.replace(command(f"/proc/{old}/cmdline", sees + WAITS), within_s=20)
        assert child.announcement["word"] is True
        assert child.pid == child.announcement["pid"] != old
        assert not is_alive(old)
        assert child.is_up


@pytest.mark.parametrize(("program", "within_s"), [(SPENT, 20.0), (SILENT, 0.5)])
async def test_the_old_one_stays_where_the_new_one_dies_or_is_never_ready(
    program: str, within_s: float
) -> None:
    with capture_logs() as logs:
        async with kept(command()) as child:
            old = child.pid
            assert not await child.replace(command("second", program), within_s=within_s)
            assert (child.pid, child.is_up) == (old, True)
            assert (child.failures, child.restarts) == (1, 0)
            assert events(logs, "replacement_failed") == 1
            # Nor is it remembered: after a death the old command is the one to start by.
            os.kill(old, signal.SIGKILL)
            await eventually(lambda: child.is_up and child.pid != old)
            assert child.announcement["word"] == "first"


async def test_a_later_start_is_by_the_command_that_replaced_the_first() -> None:
    async with kept(command()) as child:
        assert await child.replace(command("second"), within_s=20)
        second = child.pid
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: child.is_up and child.pid != second)
        assert child.announcement["word"] == "second"
        assert child.restarts == 1


async def test_one_that_dies_while_its_successor_starts_is_not_started_again() -> None:
    slow = "import time\ntime.sleep(1)\n" + READY + WAITS
    with capture_logs() as logs:
        async with kept(command()) as child, asyncio.TaskGroup() as tasks:
            replacing = tasks.create_task(child.replace(command("slow", slow), within_s=20))
            await eventually(lambda: events(logs, "process_started") == 2)
            os.kill(child.pid, signal.SIGKILL)
            assert await replacing
            assert child.announcement["word"] == "slow"
            assert child.restarts == 0
    assert events(logs, "process_started") == 2


async def test_a_replacement_is_not_a_death() -> None:
    with capture_logs() as logs:
        async with kept(command()) as child:
            for _ in range(3):
                assert await child.replace(within_s=20)
            assert child.restarts == 0
    assert events(logs, "process_died") == 0
    assert events(logs, "process_started") == 4


async def test_a_stop_in_the_middle_of_a_replacement_ends_both() -> None:
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks, kept(command()) as child:
            tasks.create_task(child.replace(command("silent", SILENT), within_s=20))
            await eventually(lambda: events(logs, "process_started") == 2)
    pids = [each["pid"] for each in logs if each["event"] == "process_started"]
    assert not any(map(is_alive, pids))
    assert events(logs, "process_killed") == 0


async def test_the_old_one_that_does_not_end_is_killed_and_the_new_one_serves() -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
    deaf += "while True: time.sleep(1)"
    async with kept(command("deaf", deaf), patience_s=0.3) as child:
        old = child.pid
        assert await child.replace(command("second"), within_s=20)
        assert not is_alive(old)
        assert child.announcement["word"] == "second"


async def test_one_that_is_dead_at_once_in_its_new_place_is_started_again_while_the_old_one_drains(
    tmp_path: Path,
) -> None:
    drained = tmp_path / "drained"
    drains = f"""
import pathlib
def drain(*_):
    while not pathlib.Path({str(drained)!r}).exists(): time.sleep(0.02)
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
"""
    drains = READY.replace("print(", drains + "print(") + "while True: time.sleep(1)"
    async with kept(command("old", drains)) as child, asyncio.TaskGroup() as tasks:
        replacing = tasks.create_task(child.replace(command("second"), within_s=20))
        await eventually(lambda: child.announcement["word"] == "second")
        second = child.pid
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: child.is_up and child.pid != second)
        assert not replacing.done()
        drained.touch()


# ---------------------------------------------------------------- one that stands by

# Stands by where it is told to, and is ready once it is its turn. It is asked to end: it lets go,
# then has something to finish.
STANDS_BY = """
import json, os, pathlib, signal, sys, time
def say(event):
    said = {"event": event, "pid": os.getpid(), "word": sys.argv[1]}
    print(json.dumps(said), flush=True)
def end(*_):
    pathlib.Path(sys.argv[1] + ".asked").touch()
    say("let_go")
    while not pathlib.Path(sys.argv[1] + ".finished").exists(): time.sleep(0.02)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
if "--stand-by" in sys.argv:
    say("standing_by")
    if not sys.stdin.readline(): sys.exit(0)
say("ready")
while True: time.sleep(1)
"""


class Stage:
    """Where successors are tried: what a file lets finish, and what became of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def command(self, word: str, program: str = STANDS_BY) -> Command:
        return command(str(self._folder / word), program)

    def was_asked(self, word: str) -> bool:
        """Return whether that process was asked to end."""
        return (self._folder / f"{word}.asked").exists()

    def finish(self, *words: str) -> None:
        for word in words:
            (self._folder / f"{word}.finished").touch()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def word_of(child: Child) -> str:
    return Path(child.announcement["word"]).name


async def test_a_successor_serves_once_the_old_one_let_go_though_it_has_not_ended(
    stage: Stage,
) -> None:
    stage.finish("second", "third")
    with capture_logs() as logs:
        async with kept(stage.command("first")) as child:
            old = child.pid
            assert await child.start_successor(stage.command("second"), within_s=20)
            assert (word_of(child), is_alive(old)) == ("second", True)
            stage.finish("first")
            assert await child.start_successor(stage.command("third"), within_s=20)
            assert not is_alive(old), "never three of them"
    assert events(logs, "process_died") == events(logs, "process_killed") == 0


async def test_a_later_start_of_a_successor_does_not_stand_by(stage: Stage) -> None:
    stage.finish("first", "second")
    async with kept(stage.command("first")) as child:
        assert await child.start_successor(stage.command("second"), within_s=20)
        second = child.pid
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: child.is_up and child.pid != second)
        assert word_of(child) == "second"


@pytest.mark.parametrize(("program", "within_s"), [(SPENT, 20.0), (SILENT, 0.5)])
async def test_the_old_one_stays_where_no_successor_stands_by(
    stage: Stage, program: str, within_s: float
) -> None:
    stage.finish("first")
    with capture_logs() as logs:
        async with kept(stage.command("first")) as child:
            old = child.pid
            assert not await child.start_successor(
                stage.command("second", program), within_s=within_s
            )
            assert (child.pid, child.is_up) == (old, True)
            assert (child.failures, child.restarts) == (1, 0)
    assert events(logs, "replacement_failed") == 1


async def test_a_successor_that_fails_at_its_turn_leaves_the_place_to_the_command_before(
    stage: Stage,
) -> None:
    stage.finish("first")
    fails = STANDS_BY.replace("sys.exit(0)\nsay", "sys.exit(0)\n    sys.exit(2)\nsay")
    async with kept(stage.command("first")) as child:
        old = child.pid
        assert not await child.start_successor(stage.command("second", fails), within_s=20)
        await eventually(lambda: child.is_up and child.pid != old)
        assert word_of(child) == "first"
        assert child.failures == 1


async def test_a_successor_that_is_killed_while_it_waits_costs_the_place_a_moment(
    stage: Stage,
) -> None:
    stage.finish("first")
    holds = STANDS_BY.replace('    say("let_go")\n', '    time.sleep(1)\n    say("let_go")\n')
    with capture_logs() as logs:
        async with kept(stage.command("first", holds)) as child, asyncio.TaskGroup() as tasks:
            old = child.pid
            succeeding = tasks.create_task(
                child.start_successor(stage.command("second"), within_s=20)
            )
            await eventually(lambda: stage.was_asked("first"))
            second = [each["pid"] for each in logs if each["event"] == "process_started"][1]
            os.kill(second, signal.SIGKILL)
            assert not await succeeding
            await eventually(lambda: child.is_up and child.pid not in {old, second})
            assert word_of(child) == "first"


async def test_an_old_one_that_hangs_at_its_end_is_killed_and_the_successor_serves(
    stage: Stage,
) -> None:
    stage.finish("second")
    deaf = STANDS_BY.replace('    say("let_go")\n', "")  # and it never finishes
    async with kept(stage.command("first", deaf), patience_s=0.5) as child:
        old = child.pid
        assert await child.start_successor(stage.command("second"), within_s=20)
        assert not is_alive(old)
        assert word_of(child) == "second"


async def test_where_the_old_one_dies_meanwhile_the_successor_serves_as_soon_as_it_can(
    stage: Stage,
) -> None:
    stage.finish("second")
    slow = "import time\ntime.sleep(1)\n" + STANDS_BY
    with capture_logs() as logs:
        async with kept(stage.command("first")) as child, asyncio.TaskGroup() as tasks:
            succeeding = tasks.create_task(
                child.start_successor(stage.command("second", slow), within_s=20)
            )
            await eventually(lambda: events(logs, "process_started") == 2)
            os.kill(child.pid, signal.SIGKILL)
            assert await succeeding
            assert (word_of(child), child.restarts) == ("second", 0)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_stop_in_the_middle_of_a_succession_ends_all(stage: Stage, is_late: bool) -> None:
    stage.finish("first", "second")
    slow = "import time\ntime.sleep(0.5)\n" + STANDS_BY
    holds = STANDS_BY.replace('    say("let_go")\n', '    time.sleep(1)\n    say("let_go")\n')
    with capture_logs() as logs:
        async with asyncio.timeout(20), kept(stage.command("first", holds)) as child:
            succeeding = asyncio.create_task(
                child.start_successor(stage.command("second", slow), within_s=20)
            )
            await eventually(lambda: events(logs, "process_started") == 2)
            if is_late:
                await eventually(lambda: stage.was_asked("first"))
            succeeding.cancel()
    pids = [each["pid"] for each in logs if each["event"] == "process_started"]
    assert not any(map(is_alive, pids))


async def test_one_that_dies_again_and_again_is_waited_for_longer_each_time() -> None:
    with capture_logs() as logs:
        async with kept(command("mortal", READY)) as child:
            await eventually(lambda: child.restarts >= 4)
    waits = [each["again_in_s"] for each in logs if each["event"] == "process_died"]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]


async def test_a_program_that_is_not_there_is_a_death_not_a_crash(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with kept(command()) as child:
            gone = Command("proxy-0", (), program=(str(tmp_path / "gone"),))
            assert not await child.replace(gone, within_s=20)
            assert child.is_up
    assert events(logs, "process_not_started") == 1

"""A kept process that gives its place to another: replaced, restarted, and where that fails."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.child_process import Child, Command
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
        tasks.create_task(child.keep())
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
        assert child.announced["word"] is True
        assert child.pid == child.announced["pid"] != old
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
            assert child.announced["word"] == "first"


async def test_a_later_start_is_by_the_command_that_replaced_the_first() -> None:
    async with kept(command()) as child:
        assert await child.replace(command("second"), within_s=20)
        second = child.pid
        os.kill(second, signal.SIGKILL)
        await eventually(lambda: child.is_up and child.pid != second)
        assert child.announced["word"] == "second"
        assert child.restarts == 1


async def test_one_that_dies_while_its_successor_starts_is_not_started_again() -> None:
    slow = "import time\ntime.sleep(1)\n" + READY + WAITS
    with capture_logs() as logs:
        async with kept(command()) as child, asyncio.TaskGroup() as tasks:
            replacing = tasks.create_task(child.replace(command("slow", slow), within_s=20))
            await eventually(lambda: events(logs, "process_started") == 2)
            os.kill(child.pid, signal.SIGKILL)
            assert await replacing
            assert child.announced["word"] == "slow"
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
        assert child.announced["word"] == "second"


async def test_of_a_restart_the_old_one_is_gone_before_the_new_one_starts() -> None:
    sees = READY.replace('"word": sys.argv[1]', '"word": os.path.exists(sys.argv[1])')
    with capture_logs() as logs:
        async with kept(command()) as child:
            old = child.pid
            assert await child.restart(command(f"/proc/{old}/cmdline", sees + WAITS), within_s=20)
            assert child.announced["word"] is False
            assert child.restarts == 0
    assert events(logs, "process_died") == 0


async def test_where_a_restart_fails_the_command_before_it_is_started_again() -> None:
    async with kept(command()) as child:
        assert not await child.restart(command("second", SPENT), within_s=20)
        await eventually(lambda: child.is_up)
        assert child.announced["word"] == "first"
        assert child.failures == 1


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

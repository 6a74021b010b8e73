"""The keeper of processes, with programs that misbehave in the place of our own."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.process.child_process import Child, Command
from tests.doubles.waiting import eventually

READY = """
import json, signal, sys, time
print(json.dumps({"event": "ready", "data": "here"}), flush=True)
"""


def child(program: str, *, patience_s: float = 10.0) -> Child:
    command = Command("proxy-0", (), program=(sys.executable, "-c", program))
    return Child(command, patience_s)


@contextlib.asynccontextmanager
async def kept(child: Child) -> AsyncIterator[None]:
    """Keep the child; at the end it has been ended."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.keep_running())
        async with asyncio.timeout(20):
            yield
            await child.end()


async def test_a_line_that_is_not_the_childs_own_word_is_not_heard() -> None:
    talker = child("print('a library says hello')\nprint(7)" + READY + "sys.stdin.read()")
    async with kept(talker):
        await talker.ready.wait()
    assert talker.announcement == {"event": "ready", "data": "here"}


async def test_a_line_of_any_length_harms_nobody() -> None:
    talker = child("print('x' * 1_000_000)" + READY + "sys.stdin.read()")
    async with kept(talker):
        await talker.ready.wait()
    assert talker.announcement == {"event": "ready", "data": "here"}


@pytest.mark.parametrize(
    ("program", "said"),
    [
        # It has said why itself.
        ("raise SystemExit(2)", ""),
        ("raise SystemExit(1)", "the proxy-0 process did not start"),
    ],
)
async def test_one_that_dies_before_it_is_ever_ready_is_given_up(program: str, said: str) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(StartError) as caught:
            await child(program).keep_running()
    assert str(caught.value) == said


async def test_one_that_dies_later_is_started_again() -> None:
    mortal = child(READY)
    with capture_logs() as logs:
        async with kept(mortal), asyncio.timeout(20):
            await eventually(
                lambda: sum(each["event"] == "process_started" for each in logs) >= 5, 20
            )
    assert mortal.restarts >= 4


async def test_one_is_up_from_its_word_until_it_ends() -> None:
    talker = child(READY + "sys.stdin.read()")
    assert not talker.is_up
    async with kept(talker):
        await talker.ready.wait()
        assert talker.is_up
    assert not talker.is_up
    assert talker.ready.is_set()


async def test_one_with_last_words_is_let_to_say_them() -> None:
    speaks = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))\n"
    talker = child("import signal\n" + speaks + READY + "time.sleep(60)")
    with capture_logs() as logs:
        async with kept(talker):
            await talker.ready.wait()
    assert "process_killed" not in [each["event"] for each in logs]


async def test_one_that_does_not_end_is_killed() -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stubborn = child("import signal\n" + deaf + READY + "time.sleep(60)", patience_s=0.2)
    with capture_logs() as logs:
        async with kept(stubborn):
            await stubborn.ready.wait()
    assert "process_killed" in [each["event"] for each in logs]

"""SIGHUP of a process with a terminal and of one without."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Says which of the two it was.
PROGRAM = """
import asyncio, os, sys
from coalmine.process.sighup import watch_hangup
from coalmine.process.lifecycle import Stop, wait_unless_stopped

async def main():
    stop = Stop()
    asked = watch_hangup(stop)
    print("listening", flush=True)
    again = await wait_unless_stopped(stop, asked.wait())
    print("asked" if again else stop.reason, flush=True)

asyncio.run(main())
"""
# A session of its own, with the terminal that it is given.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""


def begun(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


def last_word(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=30)
    return said.strip()


@pytest.fixture
def in_a_terminal() -> Iterator["InTerminal"]:
    terminal = InTerminal()
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    terminal.close()


class InTerminal:
    """The program with a terminal of its own, which can be closed."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.process = begun(IN_A_TERMINAL, str(theirs), PROGRAM, pass_fds=[theirs])
        os.close(theirs)

    def close(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def test_a_hangup_without_a_terminal_asks_to_read_again() -> None:
    process = begun(PROGRAM, start_new_session=True)
    process.send_signal(signal.SIGHUP)
    assert last_word(process) == "asked"


def test_a_hangup_asks_to_read_again_while_the_terminal_is_there(
    in_a_terminal: InTerminal,
) -> None:
    in_a_terminal.process.send_signal(signal.SIGHUP)
    assert last_word(in_a_terminal.process) == "asked"


def test_a_terminal_that_is_gone_asks_to_stop(in_a_terminal: InTerminal) -> None:
    in_a_terminal.close()
    assert last_word(in_a_terminal.process) == "terminal gone"

"""What each verb does first, and how it fails: in one line, with the exit code of a wrong start."""

import importlib.util
import os
import signal
from typing import Final, NoReturn

import typer

from coalmine import telemetry
from coalmine.errors import StartError
from coalmine.process.lifecycle import EXIT_CANNOT_START
from coalmine.process.log import configure_logging
from coalmine.process.standard_streams import say_to_people

_FIRST_PROCESS: Final = 1
_NO_TORCH: Final = "torch is not installed; pip install 'coalmine[server]'"


def prepare() -> None:
    """Log to standard error, and fail where torch is missing."""
    try:
        configure_logging(telemetry.SERVER_SERVICE)
    except StartError as error:
        fail(str(error))
    if importlib.util.find_spec("torch") is None:
        fail(_NO_TORCH)


def end_on_interrupt() -> None:
    """Let Ctrl-C and SIGTERM end the process at once: Python can't while a model's forward runs.

    What a verb leaves behind then is what a kill leaves; the next one clears it up. Process 1 of a
    container keeps Python's way, as the system's ends any process but that.
    """
    if os.getpid() == _FIRST_PROCESS:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def fail(line: str) -> NoReturn:
    """Say why, and exit."""
    say_to_people(line)
    raise typer.Exit(EXIT_CANNOT_START)

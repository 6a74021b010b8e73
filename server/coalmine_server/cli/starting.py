"""What a verb of the server does first."""

import importlib.util
import os
import signal
from typing import Final

from coalmine import telemetry
from coalmine.errors import StartError
from coalmine.process.log import configure_logging

_FIRST_PROCESS: Final = 1
_NO_TORCH: Final = "torch is not installed; pip install 'coalmine[server]'"


def start_logging_and_check_torch() -> None:
    """Log to standard error. Raises StartError, also where torch is missing."""
    configure_logging(telemetry.SERVER_SERVICE)
    if importlib.util.find_spec("torch") is None:
        raise StartError(_NO_TORCH)


def end_on_interrupt() -> None:
    """Let Ctrl-C and SIGTERM end the process at once: Python can't while a model's forward runs.

    The process then leaves behind what a killed one does, and the next verb removes it. Process 1
    of a container keeps Python's handlers, because the system's default doesn't end it.
    """
    if os.getpid() == _FIRST_PROCESS:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)

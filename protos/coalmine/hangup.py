"""SIGHUP, which means two things: read your files again, and your terminal is gone."""

import asyncio
import os
import signal

from coalmine.lifecycle import Stop


def asked_by_hangup(stop: Stop) -> asyncio.Event:
    """Return an event that SIGHUP sets from now on; one from a terminal that is gone asks to stop.

    A process that was started by nohup has no terminal to follow.
    """
    asked = asyncio.Event()
    follows = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def hung_up() -> None:
        if follows and not _has_terminal():
            stop.ask("terminal gone")
        else:
            asked.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
    return asked


def _has_terminal() -> bool:
    """Return whether there is a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True

"""SIGHUP, which means two things: read your files again, and your terminal is gone."""

import asyncio
import signal

from coalmine.process.early_signals import EarlyHangup, has_terminal
from coalmine.process.lifecycle import Stop


def watch_hangup(stop: Stop) -> asyncio.Event:
    """Return an event that SIGHUP sets. A SIGHUP of a terminal that is gone asks to stop.

    A SIGHUP that came before, during the imports, counts. A process that was started by nohup has
    no terminal to follow.
    """
    asked = asyncio.Event()
    before = signal.getsignal(signal.SIGHUP)
    had_terminal = before.had_terminal if isinstance(before, EarlyHangup) else has_terminal()
    follows = before is not signal.SIG_IGN and had_terminal

    def handle_hangup() -> None:
        if follows and not has_terminal():
            stop.ask("terminal gone")
        else:
            asked.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, handle_hangup)
    if isinstance(before, EarlyHangup) and before.came:
        handle_hangup()
    return asked

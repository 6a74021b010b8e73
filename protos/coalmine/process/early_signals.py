"""Signals before and after the time in which a process serves.

SIGINT and SIGTERM then end the process at once and quietly. Python's own KeyboardInterrupt prints a
traceback wherever nobody expects it, and some imports swallow it. The system's own handling doesn't
end a process that is the first of a container.

SIGHUP is remembered meanwhile. A router reads its file again once it serves. Any other process ends
by it, as soon as it is clear that it is no router.
"""

import os
import signal
from types import FrameType
from typing import Final

from coalmine.process.exit_codes import INTERRUPTED, TERMINATED

_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def end_at_signals() -> None:
    """End at once from now on: with 130 at SIGINT, with 143 at SIGTERM. An ignored one stays so.

    For the main thread, as long as there is nothing to tidy up.
    """
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_at_signal)


class EarlyHangup:
    """The handler of SIGHUP until the process knows what the signal means."""

    def __init__(self) -> None:
        self.had_terminal = has_terminal()
        self.came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Remember that it came."""
        self.came = True


def remember_hangup() -> None:
    """Remember SIGHUP from now on, unless it is ignored. Later code acts on it, or leaves it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, EarlyHangup())


def leave_hangup_to_system() -> None:
    """End by SIGHUP from now on; at once if `remember_hangup` has remembered one."""
    early = signal.getsignal(signal.SIGHUP)
    if isinstance(early, EarlyHangup):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if early.came:
            os.kill(os.getpid(), signal.SIGHUP)


def has_terminal() -> bool:
    """Return whether there is a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def leave_signals_to_python() -> None:
    """Take `end_at_signals` back, where it was called: SIGINT raises KeyboardInterrupt again."""
    for number, before in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, None)):
        if signal.getsignal(number) is _exit_at_signal:
            signal.signal(number, before or signal.SIG_DFL)


def _exit_at_signal(number: int, _frame: FrameType | None) -> None:
    os._exit(_CODES[signal.Signals(number)])

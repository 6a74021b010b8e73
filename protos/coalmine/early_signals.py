"""SIGINT and SIGTERM outside of the time in which a process serves: it ends at once and quietly.

Python's own way, KeyboardInterrupt, has a traceback wherever nobody expects it, and is lost in some
imports. The system's own way ends no process that is the first of a container.
"""

import os
import signal
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
TERMINATED: Final = 143

_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def end_at_signals() -> None:
    """End at once from now on, with 130 at SIGINT and 143 at SIGTERM; one that is ignored stays so.

    For the main thread, as long as there is nothing to tidy up.
    """
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def leave_signals_to_python() -> None:
    """Take `end_at_signals` back, where it was called: SIGINT raises KeyboardInterrupt again."""
    for number, before in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, None)):
        if signal.getsignal(number) is _end:
            signal.signal(number, before or signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(_CODES[signal.Signals(number)])

"""Descriptors 0 to 2: they are open from the start, and take the process's own lines."""

import contextlib
import os
import sys
from typing import Final, TextIO

_STDERR: Final = 2


def open_standard_streams() -> None:
    """Open those of descriptors 0 to 2 that our parent has closed.

    Otherwise the next file would get that number. libuv ends a process in which a pipe of its own
    is a standard stream, and printed text would go into a socket. Python has None in the place of
    such a stream: that becomes a file too.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= _STDERR:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace", closefd=False))


def uncaptured_stream(stream: TextIO) -> TextIO:
    """Return the stream of this process's own lines; another one while `stream` is captured."""
    own: TextIO = getattr(stream, "own", stream)
    return own


def print_error_line(line: str) -> None:
    """Print one line to standard error. An error in writing is ignored."""
    with contextlib.suppress(OSError):
        print(f"coalmine: {line}", file=uncaptured_stream(sys.stderr), flush=True)


def own_descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of a captured stream's own lines; None if it isn't captured.

    Children get it: in the pipe, their lines would pass for those of a model.
    """
    own = uncaptured_stream(stream)
    return None if own is stream else own.fileno()


def discard_output() -> None:
    """Send what is still written to standard output nowhere: its reader is gone, or its disk full.

    Else Python would try again when it ends, complain, and exit with 120.
    """
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, uncaptured_stream(sys.stdout).fileno())
    os.close(descriptor)

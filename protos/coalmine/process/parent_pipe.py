"""Messages between a process and its parent, over its standard output and input."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Final

from coalmine.process.standard_streams import discard_output, uncaptured_stream

# What is told: that it serves; that it can take another's place; that another can take its own.
READY: Final = "ready"
STANDING_BY: Final = "standing_by"
LET_GO: Final = "let_go"
# What is heard: the place is free.
YOUR_TURN: Final = b"your turn\n"


def write_event(event: str, **more: str) -> None:
    """Write an event as one JSON line to standard output, whether or not the parent lives."""
    line = json.dumps({"event": event, "pid": os.getpid(), **more})
    try:
        print(line, file=uncaptured_stream(sys.stdout), flush=True)
    except OSError:
        discard_output()


def watch_parent(*, its_turn: Callable[[], None], gone: Callable[[], None]) -> None:
    """Call `its_turn` at any word on standard input, and `gone` once that is closed."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read_word() -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(descriptor, 1024):
                its_turn()
            else:
                loop.remove_reader(descriptor)
                gone()

    loop.add_reader(descriptor, read_word)

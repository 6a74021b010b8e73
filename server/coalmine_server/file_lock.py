"""A lock on an open file, which closing the file releases, and so does the death of its process."""

import fcntl
from typing import IO


def try_lock(file: IO[str]) -> bool:
    """Lock the file if no other process has it locked; return whether it is locked now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""How this process's memory is kept: by the C library's allocator."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

from coalmine.process.blocking_thread import in_thread

# From malloc.h of glibc.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_BLOCK_BYTES_MAX: Final = 32 * 1024 * 1024
_FREE_BYTES_MAX: Final = 64 * 1024 * 1024
_GIVE_BACK_S: Final = 10.0


def keep_large_blocks() -> bool:
    """Keep freed blocks of up to 32 MiB, 64 MiB in all, for the next message; return whether.

    By default glibc hands a block of a few hundred kilobytes back to the system and asks for it
    again with every message; each of its pages is then faulted in anew. Forwarding 600 kB cost 15 %
    less CPU without (benchmarks/RESULTS.md). Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES_MAX)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES_MAX)
    )


def give_back() -> bool:
    """Hand what is free back to the system: after a model has gone, for one. Return whether."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    return bool(trim(0))


async def keep_giving_back(is_idle: Callable[[], bool]) -> None:
    """Hand back now and then, while nobody asks, what a burst has left; until cancelled."""
    while True:
        await asyncio.sleep(_GIVE_BACK_S)
        if is_idle():
            await in_thread(give_back)

"""This process's memory: what it holds, and what the C library's allocator has given out of it.

The core of gRPC is among those who take from that allocator.
"""

import ctypes
import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

_FIELDS: Final = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Info(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


def is_told() -> bool:
    """Return whether the C library says it."""
    return hasattr(ctypes.CDLL(None), "mallinfo2")


def in_use_bytes() -> int:
    """Return how many bytes are given out now, once garbage is collected."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Info
    info = ask()
    return int(info.uordblks) + int(info.hblkhd)


def resident_bytes() -> int:
    """Return how much of the machine's memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def left_by_each(
    do: Callable[[], Awaitable[None]], settle: Callable[[], Awaitable[None]], count: int
) -> float:
    """Return how many bytes `do` leaves behind each time, after as many to warm up.

    `settle` returns when all of it is over.
    """
    await _repeat(do, settle, count)
    before = in_use_bytes()
    await _repeat(do, settle, count)
    return (in_use_bytes() - before) / count


async def _repeat(
    do: Callable[[], Awaitable[None]], settle: Callable[[], Awaitable[None]], count: int
) -> None:
    for _ in range(count):
        await do()
    await settle()

"""What the machine gives a process: cores, and memory by way of the C library's allocator."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from coalmine.process.blocking_thread import run_in_thread

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")

_CPU_CONTROLLER: Final = "cpu"

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


def give_memory_back() -> bool:
    """Hand what is free back to the system: after a model has gone, for one. Return whether."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    return bool(trim(0))


async def keep_giving_memory_back(is_idle: Callable[[], bool]) -> None:
    """Hand back now and then, while nobody asks, what a burst has left; until cancelled."""
    while True:
        await asyncio.sleep(_GIVE_BACK_S)
        if is_idle():
            await run_in_thread(give_memory_back)


# ---------------------------------------------------------------- cores


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Return the whole cores that this process may keep busy: one at least.

    The least of its CPU affinity and the quotas of its control group and all above it, of version
    1 or 2. Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, the file cpu.max, and
    https://docs.kernel.org/scheduler/sched-bwc.html, the files cpu.cfs_*.
    """
    quotas = [quota for folder in _folders(cgroups, own) if (quota := _quota(folder)) is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """Return the folders that hold a limit of ours, own group first, as far as they can be seen."""
    for line in _text_or_empty(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield from _folder_and_parents(cgroups, group)
        elif _CPU_CONTROLLER in controllers.split(","):
            yield from _folder_and_parents(cgroups / controllers, group)
            yield from _folder_and_parents(cgroups / _CPU_CONTROLLER, group)
    yield from (cgroups, cgroups / _CPU_CONTROLLER)


def _folder_and_parents(root: Path, group: str) -> Iterator[Path]:
    place = root / group.lstrip("/")
    while place != root and place.is_relative_to(root):
        yield place
        place = place.parent
    yield root


def _quota(folder: Path) -> float | None:
    """Return the cores that a group may use; None: as many as there are."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = _text_or_empty(folder / "cpu.max").split()
        else:
            quota = _text_or_empty(folder / "cpu.cfs_quota_us").strip()
            period = _text_or_empty(folder / "cpu.cfs_period_us").strip()
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _text_or_empty(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""

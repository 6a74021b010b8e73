"""How many cores this process may use."""

import os
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


def cores(cpu_max: Path = CPU_MAX) -> int:
    """Return the cores of this process's container where it has a limit, else the machine's.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, the file cpu.max.
    """
    mine = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return mine
    return mine if quota == "max" else max(1, min(mine, int(quota) // int(period)))

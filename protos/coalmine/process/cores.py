"""How many cores this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")

_CPU_CONTROLLER: Final = "cpu"


def cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Return the whole cores that this process may keep busy: one at least.

    The least of its CPU affinity and the quotas of its control group and all above it, of version
    1 or 2. Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, the file cpu.max, and
    https://docs.kernel.org/scheduler/sched-bwc.html, the files cpu.cfs_*.
    """
    quotas = [quota for folder in _folders(cgroups, own) if (quota := _quota(folder)) is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """Return the folders that hold a limit of ours, own group first, as far as they can be seen."""
    for line in _text(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield from _upwards(cgroups, group)
        elif _CPU_CONTROLLER in controllers.split(","):
            yield from _upwards(cgroups / controllers, group)
            yield from _upwards(cgroups / _CPU_CONTROLLER, group)
    yield from (cgroups, cgroups / _CPU_CONTROLLER)


def _upwards(root: Path, group: str) -> Iterator[Path]:
    place = root / group.lstrip("/")
    while place != root and place.is_relative_to(root):
        yield place
        place = place.parent
    yield root


def _quota(folder: Path) -> float | None:
    """Return the cores that a group may use; None: as many as there are."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = _text(folder / "cpu.max").split()
        else:
            quota = _text(folder / "cpu.cfs_quota_us").strip()
            period = _text(folder / "cpu.cfs_period_us").strip()
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""

"""Replaces workers that are old or hold much memory, one at a time.

That bounds whatever grows in a process that lives for months. One example is gRPC for Python, which
doesn't free calls that were cancelled before anybody had read them (docs/adr/0019).
"""

import asyncio
import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from coalmine.process.child_process import Child
from coalmine.process.worker_bounds import WorkerBounds

_log = structlog.get_logger(__name__)

_LOOKS_EACH_S: Final = 1.0
# One whose successor was as large at once, or did not start, is left in peace for so long.
_RESTS_S: Final = 600.0
_MIB: Final = 1024 * 1024

Replace = Callable[[Child], Awaitable[bool]]


class Recycling:
    """Checks workers now and then. `replace` replaces one, and returns whether it did.

    `recycled` counts those that were replaced, by the name of their place.
    """

    def __init__(
        self,
        bounds: WorkerBounds,
        workers: Sequence[Child],
        replace: Replace,
        *,
        looks_each_s: float = _LOOKS_EACH_S,
        rests_s: float = _RESTS_S,
    ) -> None:
        self._bounds = bounds
        self._workers = workers
        self._replace = replace
        self._looks_each_s = looks_each_s
        self._rests_s = rests_s
        self._ages: defaultdict[Child, _Age] = defaultdict(_Age)
        self._rests_until_s: defaultdict[Child, float] = defaultdict(float)
        self.recycled: Counter[str] = Counter()

    async def run(self) -> None:
        """Replace workers over the bounds, until cancelled. Without bounds, return at once."""
        while self._bounds.has_any:
            await asyncio.sleep(self._looks_each_s)
            for worker in self._workers:
                why = self._reason_to_recycle(worker)
                if why:
                    await self._recycle(worker, why)

    def _reason_to_recycle(self, worker: Child) -> str:
        now_s = _now_s()
        age_s = self._ages[worker].measure_s(worker.pid if worker.is_up else 0, now_s)
        if not worker.is_up or now_s < self._rests_until_s[worker]:
            return ""
        return self._bounds.why_over(age_s, resident_mib(worker.pid))

    async def _recycle(self, worker: Child, why: str) -> None:
        old = worker.pid
        is_done = await self._replace(worker)
        if is_done:
            self.recycled[worker.name] += 1
            _log.info("worker_recycled", process=worker.name, why=why, old=old, new=worker.pid)
        is_large = self._bounds.why_over(0.0, resident_mib(worker.pid))
        if is_large and is_done:
            _log.warning("worker_bound_too_small", process=worker.name, reason=is_large)
        if is_large or not is_done:
            self._rests_until_s[worker] = _now_s() + self._rests_s


class _Age:
    """How long a place has been held by the same process."""

    def __init__(self) -> None:
        self._pid = 0
        self._since_s = 0.0

    def measure_s(self, pid: int, now_s: float) -> float:
        """Return the seconds since this process was seen first."""
        if pid != self._pid:
            self._pid, self._since_s = pid, now_s
        return now_s - self._since_s


def resident_mib(pid: int) -> float:
    """Return how much memory a process holds; 0 where the system doesn't say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
    return 0.0


def _now_s() -> float:
    return asyncio.get_running_loop().time()

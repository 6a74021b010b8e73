"""How much counts have grown within the last minute: what goes on now, not what once was. Pure."""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Final

INTERVAL_S: Final = 5.0
_WINDOW_NS: Final = 60 * 10**9

Counts = Mapping[Hashable, int]


class RecentGrowth:
    """Remembers what `read` returned within the last minute; `note` is called each few seconds."""

    def __init__(self, read: Callable[[], Counts], now_ns: int) -> None:
        self._read = read
        self._noted: deque[tuple[int, Counts]] = deque([(now_ns, read())])

    def note(self, now_ns: int) -> None:
        """Remember the counts as they stand, and forget what is no longer needed."""
        self._noted.append((now_ns, self._read()))
        # The first is the newest of those that are a minute old.
        while now_ns - self._noted[1][0] >= _WINDOW_NS:
            self._noted.popleft()

    def growth(self, key: Hashable, count: int) -> int:
        """Return by how much a count, which is `count` now, grew in the last minute."""
        return max(0, count - self._noted[0][1].get(key, 0))

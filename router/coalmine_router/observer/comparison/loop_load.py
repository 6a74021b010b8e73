"""How busy the event loop is with comparing, and how many processes may take over. Pure."""

import math
from typing import Final

PROCESSES_MAX: Final = 4
# With a whole second, a burst could block the loop for most of it.
_SPAN_NS: Final = 250_000_000


def pool_size(cores: int) -> int:
    """Return how many processes may compare: one core of several is left to the loop."""
    return max(1, min(cores - 1, PROCESSES_MAX))


class LoopLoad:
    """The share of the last quarter of a second that comparing took; older time counts less."""

    def __init__(self) -> None:
        self._spent_ns = 0.0
        self._at_ns = 0

    def add_time(self, took_ns: int, now_ns: int) -> None:
        """Add time that comparing took until now."""
        self._spent_ns = self.share(now_ns) * _SPAN_NS + took_ns
        self._at_ns = now_ns

    def share(self, now_ns: int) -> float:
        """Return the share; above 1 where a comparison took longer than the quarter second."""
        return self._spent_ns * math.exp((self._at_ns - now_ns) / _SPAN_NS) / _SPAN_NS

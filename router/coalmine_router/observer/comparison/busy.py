"""How busy the loop is with comparing, and how many processes should do it instead. Pure."""

import math
from typing import Final

PROCESSES_MAX: Final = 4
# A whole second would let a burst hold the loop for most of it.
_SPAN_NS: Final = 250_000_000


def pool_size(cores: int) -> int:
    """Return how many processes may compare: one core is left to the loop, where there are two."""
    return max(1, min(cores - 1, PROCESSES_MAX))


class Busy:
    """The share of the last quarter of a second that was spent; older time counts ever less."""

    def __init__(self) -> None:
        self._spent_ns = 0.0
        self._at_ns = 0

    def add(self, took_ns: int, now_ns: int) -> None:
        """Take in some time that was spent up to now."""
        self._spent_ns = self.share(now_ns) * _SPAN_NS + took_ns
        self._at_ns = now_ns

    def share(self, now_ns: int) -> float:
        """Return the share; over 1 where more was spent than there was."""
        return self._spent_ns * math.exp((self._at_ns - now_ns) / _SPAN_NS) / _SPAN_NS

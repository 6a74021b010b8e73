"""Chooses which jobs are compared when not all can be: an even share, by chance. Pure."""

from collections.abc import Callable
from typing import Final

# A random number in [0, 1), such as random.Random().random returns.
Chance = Callable[[], float]

_STRATA: Final = 16
# The backlog may fill this far before the share falls; when full, the share is the least.
_FREE: Final = 0.25
_LEAST: Final = 1e-4


def share_at(fill: float) -> float:
    """Return the share of jobs, 0 to 1, that is compared while the backlog is so full, 0 to 1.

    The share falls exponentially. So the backlog settles well below its bound, where the share is
    what the processes can do, be that a half or a hundredth.
    """
    if fill <= _FREE:
        return 1.0
    if fill >= 1:
        return 0.0
    return float(_LEAST ** ((fill - _FREE) / (1 - _FREE)))


class Thinning:
    """Draws in strata: of 16 jobs each falls into another sixteenth, in random order.

    So a share of a quarter takes 4 of 16, without long runs of either outcome. Requests that come
    in a repeating order can't fall in step with it.
    """

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._strata: list[int] = []

    def draw(self, share: float) -> bool:
        """Draw for the next job; return whether it is compared. The share may change each time."""
        if not self._strata:
            self._strata = list(range(_STRATA))
        stratum = self._strata.pop(int(self._chance() * len(self._strata)))
        return (stratum + self._chance()) / _STRATA < share

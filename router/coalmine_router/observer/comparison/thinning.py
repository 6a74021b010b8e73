"""Which comparisons are made when not all can be: an even share, by chance. Pure."""

from collections.abc import Callable
from typing import Final

# A number in [0, 1), each as likely: random.Random().random.
Chance = Callable[[], float]

_STRATA: Final = 16
# Of the backlog, what may fill before the share falls; from there to the brim, by this much.
_FREE: Final = 0.25
_LEAST: Final = 1e-4


def share_of(fill: float) -> float:
    """Return the share, 0 to 1, that is compared while so much of the backlog is taken, 0 to 1.

    Each further bit takes the same factor off: so the backlog comes to rest where the share is what
    can be done, be that a half or a hundredth, well below the brim.
    """
    if fill <= _FREE:
        return 1.0
    if fill >= 1:
        return 0.0
    return float(_LEAST ** ((fill - _FREE) / (1 - _FREE)))


class Thinning:
    """Stratified draws: of any 16 in a block, each falls into another sixteenth, in random order.

    So a share of a quarter takes 4 of 16, never long runs of one or the other; and no order of
    requests that comes again and again falls in step with it.
    """

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._strata: list[int] = []

    def takes(self, share: float) -> bool:
        """Return whether the next one is taken; the share may be another each time."""
        if not self._strata:
            self._strata = list(range(_STRATA))
        stratum = self._strata.pop(int(self._chance() * len(self._strata)))
        return (stratum + self._chance()) / _STRATA < share

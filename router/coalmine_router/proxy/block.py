"""Draws choices in exact shares and random order. Pure but for chance, handed in.

A permuted block holds each choice exactly as often as its share demands. So shares are exact over
every block, and the order can't alias with periodic traffic.
"""

import math
from collections.abc import Callable, Sequence

# Returns a number in [0, 1), each as likely, like random.Random().random.
Chance = Callable[[], float]


class Block:
    """Draws from `counts` without replacement, round after round: choice i comes counts[i] times.

    Each draw is one step of a Fisher-Yates shuffle, so no draw is slower than another.
    """

    def __init__(self, counts: Sequence[int], chance: Chance) -> None:
        divisor = math.gcd(*counts)
        self._slots = [choice for choice, n in enumerate(counts) for _ in range(n // divisor)]
        self._at = 0
        self._chance = chance

    def draw(self) -> int:
        """Return the next choice."""
        slots, at = self._slots, self._at
        left = len(slots) - at
        if left == 1:
            self._at = 0
            return slots[at]
        chosen = at + int(self._chance() * left)
        slots[at], slots[chosen] = slots[chosen], slots[at]
        self._at = at + 1
        return slots[at]

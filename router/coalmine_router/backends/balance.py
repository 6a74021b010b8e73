"""Which of several addresses gets the next call: power of two choices. Pure."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

# A number in [0, 1), each as likely: random.Random().random.
Chance = Callable[[], float]


class Loaded(Protocol):
    """Something that counts its calls in flight."""

    @property
    def outstanding(self) -> int:
        """Return how many calls it has not ended yet."""
        ...


Each = TypeVar("Each", bound=Loaded)


def less_loaded(several: Sequence[Each], chance: Chance) -> Each:
    """Return, of two that chance picks, the one with fewer calls in flight.

    Two are enough: the fullest of many is nearly as empty as the emptiest, and callers that look at
    the same figures do not all run to the same place. Expects at least one; draws nothing for one.
    """
    count = len(several)
    if count == 1:
        return several[0]
    one = int(chance() * count)
    other = int(chance() * (count - 1))
    if other >= one:
        other += 1
    first, second = several[one], several[other]
    return second if second.outstanding < first.outstanding else first

"""The choice between several addresses for a call: power of two choices. Pure."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

# Returns a number in [0, 1), each as likely, like random.Random().random.
Chance = Callable[[], float]


class Loaded(Protocol):
    """Something that counts its calls in flight."""

    @property
    def outstanding(self) -> int:
        """Return the number of its calls in flight."""
        ...


Each = TypeVar("Each", bound=Loaded)


def less_loaded(several: Sequence[Each], chance: Chance) -> Each:
    """Return the less loaded of two that chance picks.

    Two are enough: the fullest of many is nearly as empty as the emptiest. And callers with the
    same figures do not all choose the same address. Expects at least one; draws nothing for one.
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

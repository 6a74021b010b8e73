"""Items in the order in which they were announced, whenever they are ready. Pure.

Evidence must not be counted in the order in which answers come back: if mismatches come back sooner
than matches do, the first ones look like many.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

WAITING_MAX: Final = 4_096


@dataclass(slots=True, eq=False)
class Turn(Generic[Item]):
    """The place of one item, which is `None` until it is ready."""

    item: Item | None = None
    is_over: bool = False


class InOrder(Generic[Item]):
    """A row of turns, bounded: over it, the first one is no longer waited for."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self._turns: deque[Turn[Item]] = deque()
        self._waiting_max = waiting_max
        # Those that were ready after others behind them had gone on.
        self.out_of_turn = 0

    def __len__(self) -> int:
        return len(self._turns)

    def announce(self) -> Turn[Item]:
        """Return the next turn; each must come to `mark_ready` once."""
        turn: Turn[Item] = Turn()
        self._turns.append(turn)
        return turn

    def mark_ready(self, turn: Turn[Item], item: Item) -> list[Item]:
        """Return the items whose turn has come by this, in order; a turn that is over has come."""
        if turn.is_over:
            self.out_of_turn += 1
            return [item]
        turn.item = item
        return self._pop_due()

    def _pop_due(self) -> list[Item]:
        due: list[Item] = []
        while self._turns and (self._turns[0].item is not None or self._is_over_bound()):
            turn = self._turns.popleft()
            turn.is_over = True
            if turn.item is not None:
                due.append(turn.item)
        return due

    def _is_over_bound(self) -> bool:
        return len(self._turns) > self._waiting_max

"""Which of a backend's targets gets the next call: each in its turn. Pure."""

from collections.abc import Sequence
from typing import Final

# As long as the router's channels wait at most before they connect again.
_LEFT_OUT_NS: Final = 10**9


class Turns:
    """Round robin; a target that just failed is left out for a second, unless all have.

    A target that is a name with several addresses is one target: gRPC calls the first that answers.
    """

    def __init__(self) -> None:
        self._next = 0
        self._missed_ns: dict[str, int] = {}

    def next(self, targets: Sequence[str], now_ns: int) -> str:
        """Return the target of a call that begins now. Expects at least one."""
        self._missed_ns = {
            target: at_ns
            for target, at_ns in self._missed_ns.items()
            if target in targets and now_ns - at_ns < _LEFT_OUT_NS
        }
        well = [target for target in targets if target not in self._missed_ns] or targets
        self._next += 1
        return well[self._next % len(well)]

    def missed(self, target: str, now_ns: int) -> None:
        """Take in a call that nobody answered."""
        self._missed_ns[target] = now_ns

    def reached(self, target: str) -> None:
        """Take in a call that was answered, well or not."""
        self._missed_ns.pop(target, None)

"""Whether a lane's calls are made at all: not while its variant can't be reached. Pure."""

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """How many failures in a row open it, and how long before a call is tried again."""

    failures: int = 5
    first_ns: int = 10**9
    longest_ns: int = 30 * 10**9


class Circuit:
    """Closed, calls are made. Open, none is, until one is tried; that one decides.

    After each that fails the wait doubles. A call is known by the era it began in: one that began
    before the circuit opened, and ends later, says nothing new.
    """

    def __init__(self, rules: CircuitRules | None = None) -> None:
        self.state: State = "closed"
        self._rules = rules or CircuitRules()
        self._era = 0
        self._failures = 0
        self._wait_ns = 0
        self._until_ns = 0

    def refuses(self, now_ns: int) -> bool:
        """Return whether no call may begin now."""
        if self.state == "open":
            return now_ns < self._until_ns
        return self.state == "half_open"

    def begin(self, now_ns: int) -> int | None:
        """Return the era of a call that begins now; None where none may."""
        if self.refuses(now_ns):
            return None
        if self.state == "open":
            self._turn("half_open")
        return self._era

    def reached(self, era: int) -> None:
        """Take in a call that was answered, well or not."""
        if era != self._era:
            return
        self._failures = self._wait_ns = 0
        if self.state == "half_open":
            self._turn("closed")

    def missed(self, era: int, now_ns: int) -> None:
        """Take in a call that nobody answered."""
        if era != self._era:
            return
        self._failures += 1
        if self.state == "half_open" or self._failures >= self._rules.failures:
            self._open(now_ns)

    def left(self, era: int) -> None:
        """Take in a call that was never made, or not to its end; another may be tried at once."""
        if era == self._era and self.state == "half_open":
            self._turn("open")

    def _open(self, now_ns: int) -> None:
        longer_ns = max(2 * self._wait_ns, self._rules.first_ns)
        self._wait_ns = min(longer_ns, self._rules.longest_ns)
        self._until_ns = now_ns + self._wait_ns
        self._turn("open")

    def _turn(self, state: State) -> None:
        self.state = state
        self._era += 1

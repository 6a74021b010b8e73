"""Events that hang together, such as the errors of one crash, as one observation. Pure.

Each event (an error, a refusal, a slow answer) falls on one side of the split. While both sides are
alike, the candidate's share of a spell's events has the mean that the split gave it, however the
events of a spell hang together: a spell begins and ends by the events of both.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np

from coalmine_router.observer.evidence.betting.wealth import Floats, Wealth

_BETS: Final = 30
_STAKES: Final = np.geomspace(0.01, 0.98, _BETS)
# A spell is over after a third of its longest time without an event.
_QUIET_PART: Final = 3


class SpellShare(NamedTuple):
    """A spell that is over: the candidate's share of its events, and that of the split's requests.

    Both in [0, 1]; `expected` is the mean over the events of the candidate's weight when each was
    routed, beside the reference's alone.
    """

    share: float
    expected: float


@dataclass(slots=True)
class Spell:
    """The spell that goes on. Times are nanoseconds of one clock; it lasts `lasts_ns` at most."""

    lasts_ns: int
    began_ns: int = 0
    latest_ns: int = 0
    events: int = 0
    own: int = 0
    expected: float = 0.0

    def add(self, at_ns: int, expected: float, *, is_candidate: bool) -> SpellShare | None:
        """Count an event; return the spell before it, where the event begins another."""
        ended = self.end(at_ns)
        if not self.events:
            self.began_ns = at_ns
        self.latest_ns = max(self.latest_ns, at_ns)
        self.events += 1
        self.own += is_candidate
        self.expected += expected
        return ended

    def end(self, now_ns: int) -> SpellShare | None:
        """Return the spell where it is over by now, and be ready for the next one."""
        if not self.events or not self._is_over(now_ns):
            return None
        ended = SpellShare(self.own / self.events, self.expected / self.events)
        self.events = self.own = self.latest_ns = 0
        self.expected = 0.0
        return ended

    def _is_over(self, now_ns: int) -> bool:
        is_quiet = now_ns - self.latest_ns > self.lasts_ns // _QUIET_PART
        return is_quiet or now_ns - self.began_ns >= self.lasts_ns


class SplitBets:
    """What spells have shown of the candidate's share of events, beside its share of requests."""

    def __init__(self, *shape: int) -> None:
        self.more = Wealth.of(*shape, _BETS)

    @property
    def observed(self) -> int:
        """How many spells were observed."""
        return self.more.observed

    def observe(self, share: Floats | float, expected: Floats | float, ratio: float = 1.0) -> None:
        """Take one spell; up to `ratio` times the reference's events are fine.

        Shapes: that of what is judged. Spells of one side alone (`expected` 0 or 1) say nothing.
        """
        fair = np.asarray(expected) * ratio
        fair = fair / (fair + 1.0 - expected)
        tells = (fair > 0.0) & (fair < 1.0)
        gain = np.where(tells, share / np.where(tells, fair, 1.0) - 1.0, 0.0)
        self.more.observe(np.log1p(_STAKES * gain[..., None]))

    def log_fail(self) -> Floats:
        """Return ln e against "the candidate has no more events than its share", at any time."""
        return self.more.log_from_any()

    def add(self, other: Self) -> None:
        """Take in spells that were observed elsewhere."""
        self.more.add(other.more)

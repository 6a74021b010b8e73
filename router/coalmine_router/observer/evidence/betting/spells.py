"""Events that hang together, such as the errors of one crash, as one observation. Pure.

Each event (an error, a refusal, a slow answer) falls on one side of the split. While both sides are
alike, the candidate's share of a spell's events has the mean that the split gave it, however the
events of a spell hang together: a spell begins and ends by the events of both.
"""

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class SpellTerms:
    """How long a spell lasts at most, and up to how many times the reference's events are fine."""

    lasts_ns: int = 30 * 10**9
    allowed_ratio: float = 1.0


@dataclass(slots=True)
class Spell:
    """The spell that goes on. Times are nanoseconds of one clock."""

    began_ns: int = 0
    latest_ns: int = 0
    events: int = 0
    own: int = 0
    expected: float = 0.0

    def add(self, at_ns: int, expected: float, *, is_candidate: bool) -> None:
        """Count an event. Whoever adds it ends a spell that is over before."""
        if not self.events:
            self.began_ns = at_ns
        self.latest_ns = max(self.latest_ns, at_ns)
        self.events += 1
        self.own += is_candidate
        self.expected += expected

    def end(self, now_ns: int, lasts_ns: int) -> SpellShare | None:
        """Return the spell where it is over by now, and be ready for the next one."""
        if not self.events or not self._is_over(now_ns, lasts_ns):
            return None
        ended = SpellShare(self.own / self.events, self.expected / self.events)
        self.events = self.own = self.latest_ns = 0
        self.expected = 0.0
        return ended

    def _is_over(self, now_ns: int, lasts_ns: int) -> bool:
        is_quiet = now_ns - self.latest_ns > lasts_ns // _QUIET_PART
        # Long before it began: the clock was set back.
        return is_quiet or not -lasts_ns < now_ns - self.began_ns < lasts_ns


@dataclass(slots=True)
class SplitBets:
    """What spells have shown of the candidate's share of events, beside its share of requests."""

    more: Wealth = field(default_factory=lambda: Wealth.of(_BETS))

    @classmethod
    def of(cls, *shape: int) -> Self:
        """Return the bets on several candidates at once."""
        return cls(Wealth.of(*shape, _BETS))

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


# One incident of the candidate's own is no evidence of what it does to callers.
OWN_EVENTS_MIN: Final = 5


@dataclass(slots=True)
class SpellEvidence:
    """Events of one kind of the split, such as errors: counts, and what spells of them have shown.

    `expected` is how many of them would be the candidate's by its weight.
    """

    total: int = 0
    of_candidate: int = 0
    expected: float = 0.0
    spell: Spell = field(default_factory=Spell)
    bets: SplitBets = field(default_factory=SplitBets)

    def add(self, at_ns: int, expected: float, *, is_candidate: bool) -> None:
        """Count an event. `expected` is the candidate's share of the split when it was routed."""
        self.spell.add(at_ns, expected, is_candidate=is_candidate)
        self.total += 1
        self.of_candidate += is_candidate
        self.expected += expected

    def close_spell(self, now_ns: int, terms: SpellTerms) -> bool:
        """Bet on the spell that goes on, and return True, where it is over by now."""
        ended = self.spell.end(now_ns, terms.lasts_ns)
        if ended is not None:
            self.bets.observe(*ended, terms.allowed_ratio)
        return ended is not None

    def log_fail(self) -> float:
        """Return ln e against "no more of these than its share"; 0 before five of its own."""
        return float(self.bets.log_fail()) if self.of_candidate >= OWN_EVENTS_MIN else 0.0

    def add_all(self, other: Self) -> None:
        """Count what another has counted as well, but for the spell that goes on there."""
        self.total += other.total
        self.of_candidate += other.of_candidate
        self.expected += other.expected
        self.bets.add(other.bets)

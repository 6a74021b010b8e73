"""Requests by the window of time in which they were compared: a window is one observation. Pure.

Mismatches come in bursts: of a tenant, a batch, an hour. Counted one by one, the requests of one
burst would be taken for as many proofs. Where the route has segments, each has windows of its own.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from coalmine_router.observer.evidence.betting.mean_bets import Limit, MeanBets

# Callers choose the values of a segment's key. Over it, segments share their windows.
_SEGMENTS_MAX: Final = 50
_OTHERS: Final = ""
# A time so much before the latest: the clock was set back.
_BACK_NS: Final = 60 * 10**9


@dataclass(frozen=True, slots=True)
class WindowTerms:
    """The limit of the mean, and how long a window is; 0: each request is one."""

    limit: Limit
    per_ns: int = 0


@dataclass(slots=True)
class Window:
    """One segment's requests of one window. `total` is the sum of their shares, each in [0, 1]."""

    total: float = 0.0
    compared: int = 0
    unanswered: int = 0


@dataclass(slots=True)
class WindowedMean:
    """Shares of requests by windows, and what these have shown of their mean.

    A request that was sent and never answered counts as one that mismatches for a PASS, and is left
    out for a FAIL: whatever its answer would have been, neither word is helped by its absence.
    """

    bets: MeanBets = field(default_factory=MeanBets)
    open: dict[str, Window] = field(default_factory=dict)
    unanswered: int = 0
    opened_ns: int = 0
    first_ns: int = 0
    max_latest_ns: int = 0

    @property
    def windows(self) -> int:
        """How many windows were observed."""
        return self.bets.below.wealth.observed

    @property
    def lasted_ns(self) -> int:
        """How long it was from the first request to the latest."""
        return self.max_latest_ns - self.first_ns

    def add(self, share: float | None, segment: str, now_ns: int, terms: WindowTerms) -> None:
        """Count a request at a time; its share is None where it was not answered."""
        self._close_windows(now_ns, terms)
        if not self.open:
            self.opened_ns = now_ns
        self.first_ns = self.first_ns or now_ns
        self.max_latest_ns = max(self.max_latest_ns, now_ns)
        is_known = segment in self.open or len(self.open) < _SEGMENTS_MAX
        window = self.open.setdefault(segment if is_known else _OTHERS, Window())
        if share is None:
            window.unanswered += 1
            self.unanswered += 1
        else:
            window.total += share
            window.compared += 1
        if not terms.per_ns:
            self._close_windows(now_ns, terms)

    def _close_windows(self, now_ns: int, terms: WindowTerms) -> None:
        if self.open and not -_BACK_NS < now_ns - self.opened_ns < terms.per_ns:
            for each in self.open.values():
                self._bet_on_window(each, terms.limit)
            self.open.clear()

    def _bet_on_window(self, window: Window, limit: Limit) -> None:
        if window.compared:
            mean = window.total / window.compared
            self.bets.observe_above(limit, mean, float(window.compared))
        size = window.compared + window.unanswered
        worst = (window.total + window.unanswered) / size
        self.bets.observe_below(limit, worst, float(size))

    def add_all(self, other: Self) -> None:
        """Take in what was counted elsewhere, but for the windows that are open there."""
        self.bets.add(other.bets)
        self.unanswered += other.unanswered
        known = [each.first_ns for each in (self, other) if each.first_ns]
        self.first_ns = min(known, default=0)
        self.max_latest_ns = max(self.max_latest_ns, other.max_latest_ns)

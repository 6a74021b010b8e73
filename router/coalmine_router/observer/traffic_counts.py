"""What each variant answered and failed to answer, and what fell back or was turned away. Pure.

Latencies go into buckets 12 % apart, so a quantile is that close to the truth, in constant memory.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from coalmine_router.codes import is_charged_to_model
from coalmine_router.observer.totals import bounded_reason

# Ten microseconds to a hundred seconds. Source of the steps: ISO 3, series R20.
_STEPS: Final = (
    *(1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8),
    *(3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0),
)
BOUNDS_NS: Final[tuple[int, ...]] = (
    *(round(step * 10**decade) for decade in range(4, 11) for step in _STEPS),
    10**11,
)


@dataclass(slots=True)
class Latencies:
    """A histogram; `counts[i]` is of durations up to BOUNDS_NS[i], the last of all above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_NS) + 1))
    sum_ns: int = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.sum_ns += duration_ns

    def quantile_ns(self, share: float) -> float:
        """Return what `share` (0 to 1) of all durations stay within; 0 where there are none.

        Interpolated in a bucket; above the last bound, that bound.
        """
        wanted = share * sum(self.counts)
        below = 0
        for position, count in enumerate(self.counts):
            if count and below + count >= wanted:
                return _within(position, (wanted - below) / count)
            below += count
        return 0.0


def _within(position: int, share: float) -> float:
    if position == len(BOUNDS_NS):
        return float(BOUNDS_NS[-1])
    low = BOUNDS_NS[position - 1] if position else 0
    return low + (BOUNDS_NS[position] - low) * share


@dataclass(slots=True)
class VariantTraffic:
    """What one variant answered, and what it failed to answer.

    `by_code` counts its answers to callers, and each call to it that failed and was tried again: a
    request that fell back is there twice, as a failure of the variant that was assigned and as an
    answer of the one that answered. `charged` are those failures alone. Latencies are of answers.
    """

    by_code: Counter[str] = field(default_factory=Counter)
    # Of requests by split, how many it was assigned, be it that another answered.
    by_split: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    charged: Counter[str] = field(default_factory=Counter)
    # Requests assigned to it that another answered: not_ready, or how its own call ended.
    fallbacks: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """All that it answered or failed, whatever their status."""
        return sum(self.by_code.values())

    @property
    def errors(self) -> int:
        """Those of them that ended with an error that is charged to the variant."""
        return sum(count for code, count in self.by_code.items() if is_charged_to_model(code))


class TrafficCounts:
    """All variants of all routes. Reading it from another thread is safe.

    Whoever adds sees to it that only names of the route table come here: so it stays bounded.
    """

    def __init__(self) -> None:
        self._variants: dict[tuple[str, str], VariantTraffic] = {}
        self._turned_away: dict[str, Counter[str]] = {}

    def count_answer(self, route: str, variant: str, *, code: str, duration_ns: int) -> None:
        """Count one request that a variant answered; "" is a route or variant that isn't known."""
        found = self._counts_of(route, variant)
        found.by_code[code] += 1
        found.latencies.add(duration_ns)

    def count_assignment(self, route: str, variant: str) -> None:
        """Count one request that the split assigned to a variant."""
        self._counts_of(route, variant).by_split += 1

    def count_failure(self, route: str, variant: str, *, code: str) -> None:
        """Charge a variant with a call that failed, and was tried again."""
        found = self._counts_of(route, variant)
        found.by_code[code] += 1
        found.charged[code] += 1

    def count_fallback(self, route: str, variant: str, *, reason: str) -> None:
        """Count a request that was assigned to a variant, and that another answered."""
        self._counts_of(route, variant).fallbacks[reason] += 1

    def count_refusal(self, route: str, reason: str) -> None:
        """Count a request that the router refused; proxies name reasons, within a bound."""
        counts = self._turned_away.setdefault(route, Counter())
        counts[bounded_reason(counts, reason)] += 1

    def variant(self, route: str, variant: str) -> VariantTraffic:
        """Return what a variant answered; nothing, where it was never asked."""
        return self._variants.get((route, variant), VariantTraffic())

    def variants(self) -> Iterator[tuple[tuple[str, str], VariantTraffic]]:
        """Return all of them, by route and variant."""
        return iter(list(self._variants.items()))

    def refusals(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Return what was turned away, by route and reason."""
        return ((route, dict(counts)) for route, counts in list(self._turned_away.items()))

    def refusals_of(self, route: str) -> dict[str, int]:
        """Return what was turned away of one route, by reason."""
        return dict(self._turned_away.get(route, {}))

    def _counts_of(self, route: str, variant: str) -> VariantTraffic:
        found = self._variants.get((route, variant))
        if found is None:
            found = self._variants[route, variant] = VariantTraffic()
        return found

"""Counts of comparisons: what a verdict rests on. Pure.

Sums of counts only, so the evidence of several routers adds up. Bounded in pairs, and in the
outputs of a pair: models choose their outputs' names. What is over the bound counts as OTHER.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from coalmine_router.observer.compare import Comparison, Outcome, OutputResult

OTHER: Final = "(other)"
PAIRS_MAX: Final = 1_024
OUTPUTS_MAX: Final = 256


class Pair(NamedTuple):
    """Whose answers were compared."""

    route: str
    reference: str
    candidate: str


@dataclass(slots=True)
class OutputEvidence:
    """Results of one output; ignored ones count as neither."""

    match: int = 0
    mismatch: int = 0
    max_abs_diff: float = 0.0

    def add(self, result: OutputResult) -> None:
        """Count one result."""
        if result.outcome == "match":
            self.match += 1
        elif result.outcome == "mismatch":
            self.mismatch += 1
        self.max_abs_diff = max(self.max_abs_diff, result.max_abs_diff)


@dataclass(slots=True)
class PairEvidence:
    """Outcomes of one pair, and the results of its outputs by name."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    outputs: dict[str, OutputEvidence] = field(default_factory=dict)

    def add(self, comparison: Comparison) -> None:
        """Count one comparison."""
        self.outcomes[comparison.outcome] += 1
        for result in comparison.outputs:
            if result.outcome != "ignored":
                self._output(result.output).add(result)

    def _output(self, name: str) -> OutputEvidence:
        # One place is kept for those that no longer fit.
        known = name in self.outputs or len(self.outputs) < OUTPUTS_MAX - 1
        return self.outputs.setdefault(name if known else OTHER, OutputEvidence())


class Evidence:
    """All pairs. Reading it from another thread is safe: counts are only ever added."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, PairEvidence] = {}

    def add(self, pair: Pair, comparison: Comparison) -> None:
        """Count one comparison of a pair."""
        known = pair in self._pairs or len(self._pairs) < PAIRS_MAX - 1
        key = pair if known else Pair(OTHER, OTHER, OTHER)
        self._pairs.setdefault(key, PairEvidence()).add(comparison)

    def pairs(self, route: str | None = None) -> Iterator[tuple[Pair, PairEvidence]]:
        """Return the pairs, or those of one route, in the order they were first seen."""
        return (
            (pair, found)
            for pair, found in list(self._pairs.items())
            if route is None or pair.route == route
        )

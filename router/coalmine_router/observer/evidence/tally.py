"""What was compared since the process began, for counters that only ever grow. Pure.

Trials come and go; these stay. Bounded in pairs, and in the outputs of a pair: models choose their
outputs' names. What is over the bound counts as OTHER.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from coalmine_router.observer.comparison.result import Comparison, Outcome, OutputResult
from coalmine_router.observer.evidence.counts import OTHER, OUTPUTS_MAX
from coalmine_router.observer.evidence.pair import PAIRS_MAX, Pair

_OTHERS = Pair(OTHER, OTHER, OTHER)


@dataclass(slots=True)
class PairTally:
    """Outcomes and kinds of one pair, and the outcomes of its outputs by name."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    outputs: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, comparison: Comparison) -> None:
        """Count one comparison."""
        self.outcomes[comparison.outcome] += 1
        if comparison.kind:
            self.kinds[comparison.kind] += 1
        for result in comparison.outputs:
            if result.outcome != "ignored":
                self._output_counts(result)[result.outcome] += 1

    def _output_counts(self, result: OutputResult) -> Counter[str]:
        # One place is kept for those that no longer fit.
        known = result.output in self.outputs or len(self.outputs) < OUTPUTS_MAX - 1
        return self.outputs.setdefault(result.output if known else OTHER, Counter())


class Tally:
    """All pairs. Reading it from another thread is safe: counts are only ever added."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, PairTally] = {}

    def add(self, pair: Pair, comparison: Comparison) -> None:
        """Count one comparison of a pair."""
        known = pair in self._pairs or len(self._pairs) < PAIRS_MAX - 1
        self._pairs.setdefault(pair if known else _OTHERS, PairTally()).add(comparison)

    def pairs(self) -> Iterator[tuple[Pair, PairTally]]:
        """Return the pairs, in the order they were first seen."""
        return iter(list(self._pairs.items()))

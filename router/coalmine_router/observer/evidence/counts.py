"""Evidence: sums of what was seen of a candidate beside its reference. Pure.

Sums only, so the evidence of several routers adds up, and survives a restart. All is bounded:
models choose their outputs' names, callers the values of a segment's key.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from coalmine_router.observer.comparison.result import Comparison, Outcome, OutputResult
from coalmine_router.observer.evidence.address_evidence import VariantAddresses
from coalmine_router.observer.evidence.betting.spells import SpellEvidence
from coalmine_router.observer.evidence.betting.windows import WindowedMean
from coalmine_router.observer.evidence.differences import Differences

OTHER: Final = "(other)"
# Beside the names of outputs: the answer as such, whether it could be read.
WHOLE: Final = ""
OUTPUTS_MAX: Final = 256
SEGMENTS_MAX: Final = 50
WEIGHTS_MAX: Final = 1_024


@dataclass(slots=True)
class Shares:
    """Numbers in [0, 1], one a request: the share of its rows that mismatch, and the rest.

    A request is the unit, whatever the size of its batch: rows of one request are not independent.
    `mismatch` + `match` is the number of requests.
    """

    mismatch: float = 0.0
    match: float = 0.0

    @property
    def requests(self) -> int:
        """How many requests were counted."""
        return round(self.mismatch + self.match)

    @property
    def mean(self) -> float:
        """The mean share; 0 where there is none."""
        total = self.mismatch + self.match
        return self.mismatch / total if total else 0.0

    def add(self, share: float) -> None:
        """Count one request."""
        self.mismatch += share
        self.match += 1.0 - share


@dataclass(slots=True)
class OutputEvidence:
    """Results of one output; ignored and skipped ones count as neither."""

    match: int = 0
    mismatch: int = 0
    rows: int = 0
    rows_mismatch: int = 0
    max_abs_diff: float = 0.0
    rule: str = ""
    raw: Shares = field(default_factory=Shares)
    # The reference against itself; and of moments of requests that have both, the mean difference.
    noise: Shares = field(default_factory=Shares)
    beyond_noise: Differences = field(default_factory=Differences)

    def add(self, result: OutputResult) -> None:
        """Count one result that matched or mismatched."""
        self.match += result.outcome == "match"
        self.mismatch += result.outcome == "mismatch"
        self.rows += result.rows
        self.rows_mismatch += result.rows_mismatch
        self.max_abs_diff = max(self.max_abs_diff, result.max_abs_diff)
        self.rule = result.rule
        self.raw.add(result.share)


@dataclass(slots=True)
class Events:
    """Requests of the split between candidate and reference.

    By the two weights, in hundredths of a percent, at which the request was assigned: how many
    there were, and how many of them were the candidate's. That is all that `split_gate` needs.
    """

    by_weights: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    # Over the bound of pairs of weights.
    left_out: int = 0

    @property
    def total(self) -> int:
        """How many events there were."""
        return sum(events for events, _ in self.by_weights.values())

    @property
    def of_candidate(self) -> int:
        """How many of them were the candidate's."""
        return sum(own for _, own in self.by_weights.values())

    @property
    def expected(self) -> float:
        """How many of them would be the candidate's by its weight."""
        pairs = self.by_weights.items()
        return sum(count * own / max(own + other, 1) for (own, other), (count, _) in pairs)

    def add(self, weights_bp: tuple[int, int], *, is_candidate: bool) -> None:
        """Count one event, at the weights of candidate and reference."""
        found = self.by_weights.get(weights_bp)
        if found is None:
            if len(self.by_weights) >= WEIGHTS_MAX:
                self.left_out += 1
                return
            found = self.by_weights[weights_bp] = [0, 0]
        found[0] += 1
        found[1] += is_candidate

    def add_all(self, other: "Events") -> None:
        """Count what another has counted as well."""
        for weights_bp, (events, own) in other.by_weights.items():
            if weights_bp not in self.by_weights and len(self.by_weights) >= WEIGHTS_MAX:
                self.left_out += events
                continue
            found = self.by_weights.setdefault(weights_bp, [0, 0])
            found[0] += events
            found[1] += own
        self.left_out += other.left_out


@dataclass(slots=True)
class SegmentEvidence:
    """Outcomes of the requests of one segment."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    shares: Shares = field(default_factory=Shares)

    def add(self, comparison: Comparison) -> None:
        """Count one comparison."""
        self.outcomes[comparison.outcome] += 1
        if comparison.is_judged:
            self.shares.add(comparison.share)


@dataclass(slots=True)
class Evidence:
    """What was seen of one candidate beside one reference, under the same models and rules."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    rows_mismatch: int = 0
    # Of whole comparisons: a row mismatches where any output of it does.
    shares: Shares = field(default_factory=Shares)
    # The same by windows, with requests that the candidate never answered.
    windows: WindowedMean = field(default_factory=WindowedMean)
    # Of requests whose reference answered: whether the candidate failed by its own fault.
    failures: Shares = field(default_factory=Shares)
    outputs: dict[str, OutputEvidence] = field(default_factory=dict)
    # Of answers as a whole: those of which no output could be read mismatch, all others match.
    whole: OutputEvidence = field(default_factory=OutputEvidence)
    segments: dict[str, SegmentEvidence] = field(default_factory=dict)
    # Requests that the reference answered twice, and the moments that they came in: see moment.py.
    noise_pairs: int = 0
    moments: int = 0
    # Of those: how much more often the candidate failed by its own fault than the reference did.
    failed_more: Differences = field(default_factory=Differences)
    # Of the split.
    errors: SpellEvidence = field(default_factory=SpellEvidence)
    refusals: SpellEvidence = field(default_factory=SpellEvidence)
    slow: SpellEvidence = field(default_factory=SpellEvidence)
    assigned: Events = field(default_factory=Events)
    # Of each side, what was found at its addresses.
    reference_addresses: VariantAddresses = field(default_factory=VariantAddresses)
    candidate_addresses: VariantAddresses = field(default_factory=VariantAddresses)

    def add(self, comparison: Comparison, segment: str | None = None) -> None:
        """Count one comparison; `segment` is None where the route has none."""
        self.outcomes[comparison.outcome] += 1
        if comparison.kind:
            self.kinds[comparison.kind] += 1
        if segment is not None:
            self._segment_evidence(segment).add(comparison)
        if comparison.is_judged:
            self._add_judged(comparison)

    def add_noise(self, comparison: Comparison, noise: Comparison) -> dict[str, float]:
        """Count the reference's answer against itself, beside the candidate's against it.

        Returns how much more of its rows the candidate's mismatch, by output: for `add_moment`.
        """
        if not (comparison.is_judged and noise.is_judged):
            return {}
        self.noise_pairs += 1
        itself = {
            result.output: result.share for result in (_as_output(noise), *_judged_outputs(noise))
        }
        differences: dict[str, float] = {}
        for result in (_as_output(comparison), *_judged_outputs(comparison)):
            share = itself.get(result.output, 0.0)
            self._whole_or_output(result.output).noise.add(share)
            differences[result.output] = result.share - share
        return differences

    def add_moment(self, means: Mapping[str, float]) -> None:
        """Count the mean differences of a moment's requests, by output."""
        self.moments += 1
        for name, mean in means.items():
            self._whole_or_output(name).beyond_noise.add(mean)

    def _add_judged(self, comparison: Comparison) -> None:
        self.rows += comparison.rows
        self.rows_mismatch += comparison.rows_mismatch
        self.shares.add(comparison.share)
        self.whole.add(_as_output(comparison))
        for result in _judged_outputs(comparison):
            self._output_evidence(result.output).add(result)

    def _whole_or_output(self, name: str) -> OutputEvidence:
        return self.whole if name == WHOLE else self._output_evidence(name)

    def _output_evidence(self, name: str) -> OutputEvidence:
        # One place is kept for those that no longer fit.
        known = name in self.outputs or len(self.outputs) < OUTPUTS_MAX - 1
        return self.outputs.setdefault(name if known else OTHER, OutputEvidence())

    def _segment_evidence(self, name: str) -> SegmentEvidence:
        known = name in self.segments or len(self.segments) < SEGMENTS_MAX - 1
        return self.segments.setdefault(name if known else OTHER, SegmentEvidence())


def _judged_outputs(comparison: Comparison) -> Iterator[OutputResult]:
    return (each for each in comparison.outputs if each.outcome in {"match", "mismatch"})


def _as_output(comparison: Comparison) -> OutputResult:
    """Return whether the answer could be read, as if it were an output."""
    if comparison.outputs:
        return OutputResult(WHOLE, "match")
    return OutputResult(WHOLE, "mismatch", rows_mismatch=1)

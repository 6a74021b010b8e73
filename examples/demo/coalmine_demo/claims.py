"""The claims of the demo, and whether each is true. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from coalmine_demo.account import (
    ALL_BP,
    OK,
    JudgedShare,
    Pair,
    Phase,
    Share,
    TrafficExchange,
    TrafficTally,
    expected_tallies,
    misattributed,
    shares_of,
)
from coalmine_demo.heldout import HeldOut

# What the route's gates allow: a candidate that is shown to be above it gets no weight.
OTHER_LABELS_MAX: Final = 0.15
# By so many comparisons, what is as wrong as the broken canary must have been found out.
FOUND_WITHIN: Final = 200
BROKEN: Final = "broken"
# Its answers follow the batch that the server happens to form; all others can be foretold.
BATCH_DEPENDENT: Final = frozenset({"int8"})


@dataclass(frozen=True, slots=True)
class Stage:
    """The requests that were split by the same weights."""

    weights_bp: Mapping[str, int]
    exchanges: Sequence[TrafficExchange]

    @property
    def shares(self) -> list[Share]:
        """The share of each weighted variant, wanted and had."""
        return shares_of(self.exchanges, self.weights_bp)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """All that the demo observed."""

    heldout: HeldOut
    phases: Sequence[Phase]
    exchanges: Sequence[TrafficExchange]
    counted: Mapping[Pair, TrafficTally]
    uncompared: int
    refused: Collection[str]
    judged: Sequence[JudgedShare]
    traced: int
    exit_codes: Mapping[str, int]

    @property
    def stages(self) -> list[Stage]:
        """The traffic by weights, in the order of time. A change of shadows begins no stage."""
        grouped = groupby(self.phases, key=lambda phase: dict(phase.weights_bp))
        return [self._stage_of(weights, list(phases)) for weights, phases in grouped]

    @property
    def expected_counts(self) -> dict[Pair, TrafficTally]:
        """The counts that the router must have."""
        return expected_tallies(self.exchanges, self.phases, self.heldout)

    def _stage_of(self, weights_bp: Mapping[str, int], phases: Sequence[Phase]) -> Stage:
        revisions = {phase.revision for phase in phases}
        return Stage(weights_bp, [each for each in self.exchanges if each.revision in revisions])


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, whether it came true, and the figures."""

    claim: str
    is_true: bool
    figures: str


def failed_candidates(judged: Iterable[JudgedShare]) -> set[str]:
    """Return the candidates that failed against stable."""
    return {each.candidate for each in _against_stable(judged) if each.verdict == "fail"}


def all_checks(outcome: DemoOutcome) -> list[Check]:
    """Return every claim of the demo."""
    return [
        _answers_check(outcome),
        _variants_check(outcome),
        *(_split_check(stage) for stage in outcome.stages if len(stage.weights_bp) > 1),
        _accuracy_check(outcome),
        _comparisons_check(outcome),
        _failed_verdict_check(outcome),
        _other_verdicts_check(outcome),
        _counts_check(outcome),
        _int8_check(outcome),
        _traces_check(outcome),
        _exit_codes_check(outcome),
    ]


def _answers_check(outcome: DemoOutcome) -> Check:
    total = len(outcome.exchanges)
    answered = sum(each.status == OK for each in outcome.exchanges)
    changes = len(outcome.phases) - 1
    return Check(
        "every request was answered while the route changed",
        0 < total == answered,
        f"{answered:,} of {total:,}, over {changes} changes",
    )


def _variants_check(outcome: DemoOutcome) -> Check:
    answered = sum(each.status == OK for each in outcome.exchanges)
    wrong = len(misattributed(outcome.exchanges, outcome.heldout))
    return Check(
        "every answer is what the variant it names answers in local torch",
        answered > 0 and not wrong,
        f"{answered - wrong:,} of {answered:,}",
    )


def _split_check(stage: Stage) -> Check:
    rows = stage.shares
    wanted = " / ".join(f"{row.variant} {row.weight_bp * 100 / ALL_BP:g}%" for row in rows)
    got = ", ".join(f"{row.variant} {row.got:,} of {row.asked:,.1f}" for row in rows)
    is_exact = bool(stage.exchanges) and all(row.is_exact for row in rows)
    return Check(f"the split {wanted} is exact", is_exact, got)


def _accuracy_check(outcome: DemoOutcome) -> Check:
    # Of all held-out images: what each variant happened to be asked is a matter of chance.
    heldout = outcome.heldout
    stable, canary = (
        float((heldout.answers[name].label == heldout.labels).mean())
        for name in ("stable", "canary")
    )
    return Check(
        "the canary reads the held-out digits at least as well as stable",
        canary >= stable,
        f"stable {stable:.1%}, canary {canary:.1%} of {len(heldout.labels)}",
    )


def _comparisons_check(outcome: DemoOutcome) -> Check:
    found = outcome.counted.get(("stable", BROKEN), TrafficTally(0, 0))
    served = sum(each.variant == BROKEN for each in outcome.exchanges)
    weight = max(phase.weights_bp.get(BROKEN, 0) for phase in outcome.phases)
    return Check(
        "the broken canary was caught by comparisons before it had any weight, and only it",
        set(outcome.refused) == {BROKEN} and served == weight == 0,
        f"another label in {found.other_label:,} of {found.compared:,}; it answered {served}",
    )


def _failed_verdict_check(outcome: DemoOutcome) -> Check:
    found = [each for each in _against_stable(outcome.judged) if each.candidate == BROKEN]
    is_found = any(each.verdict == "fail" and each.requests <= FOUND_WITHIN for each in found)
    told = [f"{each.verdict.upper()} after {each.requests} comparisons" for each in found]
    return Check(
        f"the verdict on the broken canary is FAIL, within {FOUND_WITHIN} comparisons",
        is_found and true_rate(outcome.heldout, BROKEN) > OTHER_LABELS_MAX,
        ", ".join(told) or "it was not judged",
    )


def _other_verdicts_check(outcome: DemoOutcome) -> Check:
    healthy = {
        each.candidate: each.verdict
        for each in _against_stable(outcome.judged)
        if true_rate(outcome.heldout, each.candidate) <= OTHER_LABELS_MAX
    }
    return Check(
        "no verdict on a candidate that local torch finds within the limit is FAIL",
        bool(healthy) and "fail" not in healthy.values(),
        ", ".join(f"{name} {verdict.upper()}" for name, verdict in healthy.items())
        or "none was judged",
    )


def true_rate(heldout: HeldOut, candidate: str) -> float:
    """Return the share of images in which a candidate reads another digit than stable.

    Local torch gives both answers.
    """
    ours, theirs = heldout.answers["stable"].label, heldout.answers[candidate].label
    return float((ours != theirs).mean())


def _against_stable(judged: Iterable[JudgedShare]) -> list[JudgedShare]:
    return [each for each in judged if each.reference == "stable"]


def _counts_check(outcome: DemoOutcome) -> Check:
    foretold = {
        pair: found
        for pair, found in outcome.expected_counts.items()
        if pair[1] not in BATCH_DEPENDENT
    }
    off = sum(_miscount(found, outcome.counted.get(pair)) for pair, found in foretold.items())
    total = sum(found.compared for found in foretold.values())
    others = sum(found.other_label for found in foretold.values())
    return Check(
        "the router counted what local torch counts, request by request",
        total > 0 and off <= outcome.uncompared,
        f"{others:,} other labels in {total:,} comparisons, off by {off}, "
        f"{outcome.uncompared} not compared",
    )


def _miscount(expected: TrafficTally, counted: TrafficTally | None) -> int:
    found = counted or TrafficTally(0, 0)
    short = abs(expected.compared - found.compared)
    return max(short, abs(expected.other_label - found.other_label))


def _int8_check(outcome: DemoOutcome) -> Check:
    found = outcome.counted.get(("stable", "int8"), TrafficTally(0, 0))
    return Check(
        "int8 answers nearly, and not quite, like the model that it was made of",
        0 < found.rate <= OTHER_LABELS_MAX,
        f"another label in {found.other_label:,} of {found.compared:,}",
    )


def _traces_check(outcome: DemoOutcome) -> Check:
    total = len(outcome.exchanges)
    return Check(
        "every request is one trace, from the router into the server",
        0 < total == outcome.traced,
        f"{outcome.traced:,} of {total:,}",
    )


def _exit_codes_check(outcome: DemoOutcome) -> Check:
    codes = ", ".join(f"{name} {code}" for name, code in outcome.exit_codes.items())
    return Check(
        "the processes ended when asked to, without an error",
        bool(outcome.exit_codes) and not any(outcome.exit_codes.values()),
        f"exit codes: {codes}",
    )

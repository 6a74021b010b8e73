"""Evidence and trials with a figure in every place."""

from typing import Literal

from coalmine_router.observer.comparison.result import Comparison, OutputResult
from coalmine_router.observer.evidence.betting.mean_bets import Limit
from coalmine_router.observer.evidence.betting.spells import SpellTerms
from coalmine_router.observer.evidence.betting.windows import WindowTerms
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.trial import Trial, TrialKey
from coalmine_router.observer.evidence.verdict import Gate, Verdict

PAIR = Pair("digits", "stable", "canary")
KEY = TrialKey("rules", "definition", "1", "2")
TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
FAIL = Verdict(
    "fail",
    "3.1 % of 420 requests mismatch, allowed 1 %",
    (Gate("mismatch", "fail", "too many", 4.5, -1.25, 3.0, 420), Gate("split")),
    at_ns=77,
    trace_id=TRACE_ID,
)


def a_comparison(mismatching: int = 1, *, rows: int = 4, output: str = "scores") -> Comparison:
    """Return a comparison of `rows` of which so many differ."""
    outcome: Literal["match", "mismatch"] = "mismatch" if mismatching else "match"
    result = OutputResult(output, outcome, rows, mismatching, mismatching / 8, "close")
    return Comparison(
        outcome,
        "value" if mismatching else "",
        outputs=(result, OutputResult("label", "match", rows, rule="argmax")),
        rows=rows,
        rows_mismatch=mismatching,
    )


def add_request(evidence: Evidence, comparison: Comparison, rate: float = 0.01) -> None:
    """Count a request, which is a window of its own."""
    evidence.add(comparison)
    evidence.windows.add(comparison.share, "", 1, WindowTerms(Limit(rate)))


def add_with_noise(
    evidence: Evidence, comparison: Comparison, noise: Comparison, segment: str | None = None
) -> None:
    """Count a request that the reference answered twice, in a moment of its own."""
    evidence.add(comparison, segment)
    if comparison.is_judged:
        evidence.windows.add(comparison.share, segment or "", 1, WindowTerms(Limit(0.01)))
    differences = evidence.add_noise(comparison, noise)
    if differences:
        evidence.add_moment(differences)


def an_evidence(times: int = 1, output: str = "scores") -> Evidence:
    """Return evidence of every sort; all its sums are exact."""
    evidence = Evidence()
    for number in range(times):
        noise = a_comparison(1, output=output)
        add_with_noise(evidence, a_comparison(2, output=output), noise, "acme")
        evidence.add(a_comparison(0), segment="(none)")
        evidence.add(Comparison("error", "status"), segment="acme")
        evidence.failures.add(1.0)
        evidence.failed_more.add(0.5)
        evidence.windows.add(number / 4, "acme", number + 1, WindowTerms(Limit(0.01)))
        evidence.assigned.add((100, 9_900), is_candidate=True)
        evidence.assigned.add((100 + times, 9_900), is_candidate=False)
        for spells in (evidence.errors, evidence.refusals, evidence.slow):
            spells.close_spell(number * 60 * 10**9, SpellTerms())
            spells.add(number * 60 * 10**9, 0.125, is_candidate=True)
            spells.add(number * 60 * 10**9, 0.125, is_candidate=False)
        for addresses in (evidence.reference_addresses, evidence.candidate_addresses):
            for place in (1, 2):
                addresses.add(f"10.0.0.{place}:8001", place / 4, at_ns=place)
    return evidence


def a_trial(number: int = 1, pair: Pair = PAIR, *, began_ns: int = 1) -> Trial:
    """Return a trial that has failed."""
    return Trial(pair, KEY, number, began_ns, "first", 0, number, an_evidence(3), FAIL, FAIL)

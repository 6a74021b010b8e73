"""From evidence to a verdict."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coalmine_router.config.gates_section import GatesConfig
from coalmine_router.observer.comparison.result import Comparison, OutputResult
from coalmine_router.observer.evidence.betting.spells import SpellTerms
from coalmine_router.observer.evidence.counts import SEGMENTS_MAX, Evidence, SegmentEvidence, Shares
from coalmine_router.observer.evidence.gates.all_gates import (
    GateSettings,
    gate_settings,
    segment_verdicts,
    verdict_after,
)
from coalmine_router.observer.evidence.saved import merged_evidence
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Gate, Verdict
from tests.doubles.evidence import add_request

ONE_PERCENT = GateSettings()
# With the file's defaults.
OF_FILE = GateSettings(per_ns=10**9, min_duration_ns=600 * 10**9)
TRACE = b"t" * 16


def a_comparison(is_match: bool, output: str = "scores") -> Comparison:
    bad = int(not is_match)
    results = (
        OutputResult(output, "match" if is_match else "mismatch", rows_mismatch=bad),
        OutputResult("label", "match"),
    )
    return Comparison("match" if is_match else "mismatch", "", (), bad, results, 1, bad)


def compared(
    matches: int, mismatches: int = 0, failures: int = 0, *, rate: float = 0.01
) -> Evidence:
    evidence = Evidence()
    for is_match in [True] * matches + [False] * mismatches:
        add_request(evidence, a_comparison(is_match), rate)
        evidence.failures.add(0.0)
    for _ in range(failures):
        evidence.add(Comparison("error", "status"))
        evidence.failures.add(1.0)
    return evidence


def verdict_of(
    evidence: Evidence, gates: GateSettings = ONE_PERCENT, before: Verdict = NO_VERDICT
) -> Verdict:
    return verdict_after(evidence, gates, before, at_ns=7, trace_id=TRACE)


def gate_of(verdict: Verdict, name: str) -> Gate:
    return next(each for each in verdict.gates if each.gate == name)


# ---------------------------------------------------------------- the words


def test_449_matches_pass_and_448_do_not() -> None:
    """After 341 matches the predictions pass; that its failures are few takes 449 requests."""
    assert gate_of(verdict_of(compared(340)), "mismatch").finding == "open"
    assert gate_of(verdict_of(compared(341)), "mismatch").finding == "pass"
    assert verdict_of(compared(448)).verdict == "inconclusive"
    found = verdict_of(compared(449))
    assert (found.verdict, found.at_ns, found.trace_id) == ("pass", 7, TRACE)
    assert found.reason.startswith("0 % of 449 requests mismatch (0 % to 1 %), allowed 1 %")


def test_too_many_mismatches_fail_and_say_how_many_and_where() -> None:
    found = verdict_of(compared(406, 14))
    assert found.verdict == "fail"
    assert found.reason == (
        "3.3 % of 420 requests mismatch (1 % to 6.5 %), allowed 1 %; worst output: scores"
    )


def test_the_first_comparisons_are_inconclusive_and_say_how_many_are_needed() -> None:
    found = verdict_of(compared(12))
    assert found.verdict == "inconclusive"
    assert found.reason == (
        "0 % of 12 requests mismatch, allowed 1 %; at least 50 requests must be compared"
    )


def test_fewer_than_the_least_number_never_pass_and_may_fail() -> None:
    gates = GateSettings(max_mismatch_rate=0.4)
    assert verdict_of(compared(49, rate=0.4), gates).verdict == "inconclusive"
    assert verdict_of(compared(50, rate=0.4), gates).verdict == "pass"
    assert verdict_of(compared(0, 10, rate=0.4), gates).verdict == "fail"


def test_a_mismatch_that_comes_first_fails_nothing_alone() -> None:
    assert verdict_of(compared(0, 9)).verdict == "inconclusive"
    assert verdict_of(compared(9, 1)).verdict == "inconclusive"
    assert verdict_of(compared(0, 10)).verdict == "fail"


def test_no_data_is_inconclusive() -> None:
    found = verdict_of(Evidence())
    assert (found.verdict, found.reason) == ("inconclusive", NO_VERDICT.reason)


def test_nothing_but_failures_is_inconclusive() -> None:
    found = verdict_of(compared(0, 0, failures=1_000))
    assert found.verdict == "inconclusive"
    assert found.reason == "no two answers to compare: 1,000 failed"


def test_what_could_not_be_compared_is_told_as_it_grows() -> None:
    evidence, found = Evidence(), NO_VERDICT
    for outcome in ("skipped", "skipped", "error"):
        evidence.add(Comparison(outcome, ""))
        found = verdict_of(evidence, before=found)
    assert found.reason == "no two answers to compare: 1 failed, 2 skipped"
    assert verdict_of(evidence, before=found) is found


def test_what_passes_but_for_failures_that_nobody_can_know_says_so() -> None:
    evidence = Evidence()
    for _ in range(600):
        add_request(evidence, a_comparison(True))
    assert verdict_of(evidence).reason == (
        "not decided yet: no copy of a request to the candidate has shown yet whether it fails"
    )


def test_a_candidate_that_fails_often_fails_though_its_answers_match() -> None:
    found = verdict_of(compared(400, 0, failures=60))
    assert found.verdict == "fail"
    assert found.reason.startswith("13 % of 460 copied requests failed (")


def test_answers_that_match_do_not_pass_while_its_failures_may_be_too_many() -> None:
    evidence = compared(600, 0, failures=4)
    found = verdict_of(evidence)
    assert gate_of(found, "mismatch").finding == "pass"
    assert (found.verdict, gate_of(found, "errors").finding) == ("inconclusive", "open")
    assert found.reason == "not decided yet: 0.66 % of 604 copied requests failed, allowed 1 %"
    assert verdict_of(evidence, replace(ONE_PERCENT, error_rate=False)).verdict == "pass"


def test_a_route_that_allows_any_rate_is_never_judged_by_its_predictions() -> None:
    gates = GateSettings(max_mismatch_rate=None)
    for evidence in (compared(5_000), compared(0, 5_000), compared(100, 0, failures=100)):
        found = verdict_of(evidence, gates)
        assert found.verdict == "inconclusive"
        assert found.reason == "predictions are not judged: the route has no max_mismatch_rate"


def test_settings_are_those_of_the_file() -> None:
    config = GatesConfig.model_validate(
        {"max_mismatch_rate": 0.02, "alpha": 0.1, "min_pairs": 9, "slow": {"over": "1s"}}
    )
    assert gate_settings(config, has_noise=True) == replace(
        OF_FILE, max_mismatch_rate=0.02, alpha=0.1, min_pairs=9, slow=True, has_noise=True
    )
    within = GatesConfig.model_validate({"addresses_within": "10s"})
    assert gate_settings(within, has_noise=False) == replace(OF_FILE, addresses_within_ns=10**10)
    alone = GatesConfig.model_validate({"per": "request", "min_duration": "0s"})
    assert gate_settings(alone, has_noise=False) == GateSettings()
    spells = GatesConfig.model_validate({"spell": "2s", "allowed_ratio": 1.5})
    assert gate_settings(spells, has_noise=False).spells == SpellTerms(2 * 10**9, 1.5)


@pytest.mark.parametrize("within", ["0s", "10", 10, "-1m", None])
def test_a_time_that_is_none_is_refused(within: object) -> None:
    with pytest.raises(ValidationError, match="addresses_within"):
        GatesConfig.model_validate({"addresses_within": within})
    assert gate_settings(GatesConfig(), has_noise=False) == OF_FILE


# ---------------------------------------------------------------- over time


def test_a_verdict_keeps_the_time_and_the_request_that_made_it() -> None:
    passed = verdict_of(compared(449))
    later = verdict_after(compared(460), ONE_PERCENT, passed, at_ns=99, trace_id=b"other")
    assert (later.verdict, later.at_ns, later.trace_id) == ("pass", 7, TRACE)
    assert later.reason == passed.reason


def test_a_pass_stays_though_a_single_mismatch_comes_after() -> None:
    later = verdict_of(compared(449, 1), before=verdict_of(compared(449)))
    assert later.verdict == "pass"


def test_a_candidate_that_breaks_after_it_passed_fails() -> None:
    passed = verdict_of(compared(449))
    found = verdict_after(compared(449, 40), ONE_PERCENT, passed, at_ns=99, trace_id=b"other")
    assert (found.verdict, found.at_ns, found.trace_id) == ("fail", 99, b"other")
    assert "8.2 % of 489 requests mismatch" in found.reason


def test_each_gate_keeps_the_time_at_which_it_was_decided() -> None:
    failures_known = compared(449)
    unknown = replace(compared(449), failures=Shares())
    first = verdict_of(unknown)
    assert [gate_of(first, name).at_ns for name in ("mismatch", "errors")] == [7, 0]
    later = verdict_after(failures_known, ONE_PERCENT, first, at_ns=99, trace_id=TRACE)
    assert later.verdict == "pass"
    assert [gate_of(later, name).at_ns for name in ("mismatch", "errors", "split")] == [7, 99, 0]
    failed = verdict_after(compared(449, 40), ONE_PERCENT, later, at_ns=120, trace_id=TRACE)
    assert [gate_of(failed, name).at_ns for name in ("mismatch", "errors")] == [120, 99]


def test_fail_is_final() -> None:
    failed = verdict_of(compared(0, 10))
    assert verdict_of(compared(100_000, 10), before=failed) is failed


def test_a_pass_rests_on_evidence_that_was_there_when_it_was_told() -> None:
    gates = GateSettings(max_mismatch_rate=0.1, min_pairs=100)
    early = verdict_of(compared(60, rate=0.1), gates)
    assert gate_of(early, "mismatch").log_pass > gates.log_needed
    later = verdict_of(compared(94, 6, rate=0.1), gates, early)
    assert (later.verdict, gate_of(later, "mismatch").finding) == ("inconclusive", "open")
    assert gate_of(later, "mismatch").log_pass < gates.log_needed


def test_the_greatest_evidence_counts() -> None:
    first = verdict_of(compared(40, 2))
    second = verdict_of(compared(2_000, 2), before=first)
    assert gate_of(second, "mismatch").log_fail == gate_of(first, "mismatch").log_fail
    assert gate_of(second, "mismatch").log_pass > gate_of(first, "mismatch").log_pass


def test_a_look_at_nothing_new_changes_nothing() -> None:
    found = verdict_of(compared(60))
    assert verdict_of(compared(60), before=found) is found


# ---------------------------------------------------------------- the split


def test_a_split_that_is_not_kept_makes_it_inconclusive() -> None:
    evidence = compared(449)
    evidence.assigned.by_weights[(500, 9_500)] = [10_000, 700]
    found = verdict_of(evidence, before=verdict_of(compared(449)))
    assert found.verdict == "inconclusive"
    assert gate_of(found, "split").finding == "alarm"
    assert found.reason == (
        "700 of 10,000 requests were the candidate's, 500 expected by its weight: "
        "the router does not split as configured"
    )


def test_a_split_that_is_not_kept_does_not_hide_a_fail() -> None:
    evidence = compared(0, 20)
    evidence.assigned.by_weights[(500, 9_500)] = [10_000, 700]
    assert verdict_of(evidence).verdict == "fail"


# ---------------------------------------------------------------- over routers


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_evidence_of_two_routers_is_judged_as_that_of_one(
    seen: list[tuple[bool, bool, bool]],
) -> None:
    one, halves = Evidence(), (Evidence(), Evidence())
    for is_first, is_match, has_noise in seen:
        for evidence in (one, halves[is_first]):
            add_request(evidence, a_comparison(is_match))
            evidence.failures.add(float(not is_match))
            if has_noise:
                noise = a_comparison(is_match=True)
                evidence.add_moment(evidence.add_noise(a_comparison(is_match), noise))
                evidence.failed_more.add(float(not is_match))
            evidence.errors.add(1, 0.01, is_candidate=is_match)
            evidence.assigned.add((100, 9_900), is_candidate=has_noise)
    for has_noise in (False, True):
        gates = GateSettings(has_noise=has_noise, min_pairs=1)
        whole, both = verdict_of(one, gates), verdict_of(merged_evidence(*halves), gates)
        assert (both.verdict, both.reason) == (whole.verdict, whole.reason)
        for ours, theirs in zip(both.gates, whole.gates, strict=True):
            # What began later is weighted by each router for itself.
            assert ours.log_fail == pytest.approx(theirs.log_fail, abs=math.log(4))
            assert ours.log_pass == pytest.approx(theirs.log_pass)


# ---------------------------------------------------------------- segments


def test_a_segment_is_judged_by_itself_with_a_share_of_alpha() -> None:
    evidence = Evidence()
    evidence.segments["good"] = SegmentEvidence(shares=Shares(0.0, 2_000.0))
    evidence.segments["few"] = SegmentEvidence(shares=Shares(0.0, 449.0))
    evidence.segments["bad"] = SegmentEvidence(shares=Shares(30.0, 100.0))
    expected = {"good": "pass", "few": "inconclusive", "bad": "fail"}
    assert segment_verdicts(evidence, ONE_PERCENT) == expected
    with_noise = {**expected, "bad": "inconclusive"}
    assert segment_verdicts(evidence, replace(ONE_PERCENT, has_noise=True)) == with_noise
    unjudged = segment_verdicts(evidence, GateSettings(max_mismatch_rate=None))
    assert set(unjudged.values()) == {"inconclusive"}
    assert math.log(SEGMENTS_MAX / 0.05) > math.log(20)


def test_a_sound_candidate_seldom_fails_judged_after_every_comparison() -> None:
    chance, fails, passes = random.Random(51), 0, 0
    for _ in range(40):
        evidence, verdict = Evidence(), NO_VERDICT
        for _ in range(250):
            add_request(evidence, a_comparison(chance.random() >= 0.1), 0.1)
            evidence.failures.add(0.0)
            verdict = verdict_of(evidence, GateSettings(max_mismatch_rate=0.1), verdict)
        fails += verdict.verdict == "fail"
        passes += verdict.verdict == "pass"
    assert max(fails, passes) <= 4

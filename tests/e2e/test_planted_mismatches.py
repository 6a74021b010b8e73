"""Rare mismatches among many comparisons, a sampler at 1 %, a collector that dies: none is lost.

COALMINE_PLANTED says how many comparisons there are: 100,000 have 100 planted mismatches, and take
some minutes.
"""

import os
from collections import Counter

import pytest

from tests.doubles.planted import RIGHT_VERSION, WRONG_VERSION, Plan, number_of, trace_id
from tests.doubles.planted_rig import (
    CANDIDATE,
    RATIO,
    SPANS_A_TRACE,
    VERDICT_SPANS,
    Outcome,
    outcome_of,
)

COMPARISONS = int(os.environ.get("COALMINE_PLANTED", "5000"))
# One in a thousand, but enough of them for some to fall into the outage.
PLAN = Plan(COMPARISONS, max(50, COMPARISONS // 1_000))
# A collector that is killed may have written down a batch, and not acknowledged it.
BATCH_SPANS_MAX = 128

pytestmark = pytest.mark.timeout(120 + COMPARISONS // 50)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome_of(PLAN, tmp_path_factory.mktemp("planted"))


def test_every_caller_is_answered_right(outcome: Outcome) -> None:
    assert outcome.calls == {"right": COMPARISONS}


def test_every_request_is_copied_sent_and_compared(outcome: Outcome) -> None:
    [shadow] = outcome.status["shadows"]
    assert shadow == {
        "variant": CANDIDATE,
        "role": "shadow",
        "offered": COMPARISONS,
        "waiting": 0,
        "under_way": 0,
        "sent": COMPARISONS,
        "timed_out": 0,
        "failed": 0,
        "answered": COMPARISONS,
        "compared": COMPARISONS,
        "uncompared": 0,
        "dropped": {},
        "circuit": "closed",
    }
    reports = {"offered": COMPARISONS, "received": COMPARISONS, "dropped": {}, "recent_dropped": 0}
    assert outcome.status["reports"] == reports


def test_evidence_counts_just_the_planted_as_mismatches(outcome: Outcome) -> None:
    planted = len(PLAN.planted)
    found = {name: outcome.pair[name] for name in ("match", "mismatch", "error", "skipped")}
    wanted = {"match": COMPARISONS - planted, "mismatch": planted, "error": 0, "skipped": 0}
    assert found == wanted
    assert outcome.pair["kinds"] == {"value": planted}
    trial = outcome.pair["trial"]
    assert trial["number"] == 1
    versions = trial["reference_version"], trial["candidate_version"]
    assert versions == (RIGHT_VERSION, WRONG_VERSION)
    assert outcome.pair["verdict"]["verdict"] == "pass"


def test_metrics_say_the_same(outcome: Outcome) -> None:
    planted = len(PLAN.planted)
    assert outcome.metric("comparisons_total", outcome="mismatch") == planted
    assert outcome.metric("comparisons_total", outcome="match") == COMPARISONS - planted
    assert outcome.metric("comparisons_total") == COMPARISONS
    assert outcome.metric("mismatches_total", result="kept") == planted
    assert outcome.metric("mismatches_total") == planted


def test_the_examples_are_just_the_planted_each_once_with_its_trace(outcome: Outcome) -> None:
    kept = Counter((each["request_id"], each["trace_id"]) for each in outcome.mismatches)
    numbers = {number_of(request_id) for request_id, _ in kept}
    assert numbers == PLAN.planted
    assert set(kept.values()) == {1}
    assert all(trace == trace_id(number_of(request_id)) for request_id, trace in kept)


def test_a_span_of_a_kept_trace_is_exported_or_counted_as_dropped(outcome: Outcome) -> None:
    made = SPANS_A_TRACE * len(outcome.kept) + VERDICT_SPANS
    dropped = outcome.metric("spans_total") - outcome.metric("spans_total", result="exported")
    assert outcome.metric("spans_total") == made
    missing = made - len(outcome.spans)
    # Never more than is counted; less by what came to the old collector with its last breath.
    assert dropped - BATCH_SPANS_MAX <= missing <= dropped
    assert dropped > 0, "an outage in which nothing is lost shows nothing"


def test_no_trace_is_exported_that_nobody_asked_for(outcome: Outcome) -> None:
    requests = {
        each.trace_id for each in outcome.spans if "coalmine.verdict" not in each.attributes
    }
    assert requests <= outcome.kept
    others = len(outcome.kept) - len(PLAN.planted)
    assert 0.5 * RATIO < others / COMPARISONS < 1.5 * RATIO


def test_what_is_made_after_the_outage_is_exported_whole(outcome: Outcome) -> None:
    spans = Counter(each.trace_id for each in outcome.spans)
    later = [trace_id(number) for number in range(outcome.since, COMPARISONS)]
    wanted = dict.fromkeys(outcome.kept.intersection(later), SPANS_A_TRACE)
    assert wanted, "something must be made after the outage"
    assert {trace: spans[trace] for trace in wanted} == wanted


def test_the_exported_comparisons_say_which_of_them_are_planted(outcome: Outcome) -> None:
    compared = [each for each in outcome.spans if "coalmine.compare.outcome" in each.attributes]
    differ = {
        each.trace_id
        for each in compared
        if each.attributes["coalmine.compare.outcome"] == "mismatch"
    }
    planted = set(map(trace_id, PLAN.planted))
    assert differ == planted & {each.trace_id for each in compared}

"""Evidence as text and back, and added up."""

import json
import math
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.betting.spells import SpellEvidence
from coalmine_router.observer.evidence.betting.windows import WindowedMean
from coalmine_router.observer.evidence.counts import Evidence, OutputEvidence
from coalmine_router.observer.evidence.saved import Unreadable, from_text, merged_evidence, to_text
from coalmine_router.observer.evidence.trial import Trial
from tests.doubles.evidence import PAIR, a_comparison, a_trial, add_with_noise, an_evidence


def again(trial: Trial) -> Trial:
    return from_text(
        to_text(trial), PAIR, trial.number, began_ns=trial.began_ns, ended_ns=trial.ended_ns
    )


def test_a_trial_comes_back_as_it_was() -> None:
    trial = a_trial()
    assert all(getattr(trial.evidence, each.name) for each in fields(Evidence))
    assert trial.evidence.candidate_addresses.by_name["10.0.0.2:8001"].worse
    assert again(trial) == trial


def test_what_comes_back_can_be_added_to() -> None:
    found = again(a_trial())
    found.evidence.add(a_comparison())
    found.evidence.errors.add(1, 0.125, is_candidate=True)
    assert (found.evidence.errors.total, found.evidence.errors.of_candidate) == (7, 4)
    assert found.evidence.errors.expected == 7 / 8


@pytest.mark.parametrize("figure", [math.inf, -math.inf, 1e300])
def test_figures_that_json_has_no_word_for_come_back(figure: float) -> None:
    trial = a_trial()
    trial.evidence.outputs["y"] = OutputEvidence(max_abs_diff=figure)
    assert again(trial).evidence.outputs["y"].max_abs_diff == figure


def test_evidence_that_was_saved_before_a_sum_was_added_has_none_of_it() -> None:
    text = json.loads(to_text(a_trial()))
    del text["evidence"]["noise_pairs"]
    found = from_text(json.dumps(text), PAIR, 1, began_ns=1, ended_ns=0)
    assert found.evidence.noise_pairs == 0
    assert found.evidence.rows == a_trial().evidence.rows


def test_errors_that_were_saved_by_weights_are_counted_and_show_nothing() -> None:
    text = json.loads(to_text(a_trial()))
    text["evidence"]["errors"] = {"by_weights": {"100,9900": [40, 4], "5000,5000": [2, 1]}}
    text["evidence"]["slow"] = {"by_weights": {}, "left_out": 3}
    found = from_text(json.dumps(text), PAIR, 1, began_ns=1, ended_ns=0).evidence
    assert found.errors == SpellEvidence(total=42, of_candidate=5, expected=1.4)
    assert found.slow == SpellEvidence()


def test_a_gate_that_was_saved_before_it_had_a_time_has_none() -> None:
    text = json.loads(to_text(a_trial()))
    for gate in text["verdict"]["gates"]:
        del gate["at_ns"]
    found = from_text(json.dumps(text), PAIR, 1, began_ns=1, ended_ns=0)
    assert [each.at_ns for each in found.verdict.gates] == [0, 0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"evidence": {"assigned": {"by_weights": {"100": [1, 1]}}}}, "assigned.by_weights"),
        ({"evidence": {"errors": {"bets": {"more": {"first": "x"}}}}}, "evidence.errors.bets.more"),
        ({"evidence": 7}, "evidence: "),
        ({"evidence": {"outcomes": {"dunno": 1}}}, "evidence.outcomes.dunno"),
        ({"verdict": {"verdict": "maybe"}}, "verdict.verdict: "),
        ({"verdict": {"trace_id": "xyz"}}, "verdict.trace_id: "),
        ({"key": None}, "key: "),
    ],
)
def test_a_text_that_is_no_trial_is_refused_with_the_place(change: Any, why: str) -> None:
    text = json.dumps(json.loads(to_text(a_trial())) | change)
    with pytest.raises(Unreadable) as caught:
        from_text(text, PAIR, 1, began_ns=1, ended_ns=0)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="the text: "):
        from_text(text, PAIR, 1, began_ns=1, ended_ns=0)


# ---------------------------------------------------------------- added up


def test_the_evidence_of_two_routers_adds_up() -> None:
    one, other = an_evidence(2, "scores"), an_evidence(2, "boxes")
    both = merged_evidence(one, other)
    assert both.outcomes == {"match": 4, "mismatch": 4, "error": 4}
    assert both.outputs["label"].match == 8
    assert both.outputs["boxes"] == other.outputs["boxes"]
    assert both.outputs["scores"].max_abs_diff == 0.25
    assert both.outputs["scores"].rule == "close"
    assert both.assigned.by_weights == {(100, 9_900): [4, 4], (102, 9_900): [4, 0]}
    assert (both.errors.total, both.errors.of_candidate, both.errors.expected) == (8, 4, 1.0)
    assert both.errors.bets.observed == 2
    assert both.segments["acme"].outcomes["error"] == 4
    assert both.shares.requests == 8


def test_adding_up_changes_and_shares_nothing() -> None:
    one, other = an_evidence(2, "scores"), an_evidence(3, "boxes")
    before = deepcopy((one, other))
    both = merged_evidence(one, other)
    add_with_noise(both, a_comparison(), a_comparison(), "acme")
    both.errors.add(1, 0.125, is_candidate=True)
    assert (one, other) == before


@given(st.lists(st.integers(0, 4), max_size=8), st.lists(st.integers(0, 4), max_size=8))
def test_what_two_saw_is_what_one_would_have_seen(one: list[int], other: list[int]) -> None:
    def seen(mismatching: list[int]) -> Evidence:
        evidence = Evidence()
        for each in mismatching:
            noise = a_comparison(each // 2)
            add_with_noise(evidence, a_comparison(each), noise, f"tenant-{each}")
        return evidence

    both, whole = merged_evidence(seen(one), seen(other)), seen([*one, *other])
    assert both.windows.windows == whole.windows.windows
    assert both.windows.bets.log_pass() == pytest.approx(float(whole.windows.bets.log_pass()))
    nothing = WindowedMean()
    assert replace(both, windows=nothing) == replace(whole, windows=nothing)

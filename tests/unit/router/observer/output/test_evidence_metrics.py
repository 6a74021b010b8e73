"""What `/metrics` says of comparisons and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from coalmine_router.observer.comparison.comparer import ComparingCounts
from coalmine_router.observer.comparison.result import Comparison, OutputResult
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trials import TrialLimits, Trials
from coalmine_router.observer.evidence.verdict import Verdict, Word
from coalmine_router.observer.output.evidence_metrics import EvidenceMetrics
from tests.doubles.evidence import KEY, PAIR, a_comparison
from tests.doubles.metrics_text import Exposed, exposed, series

LABELS = PAIR._asdict()


@dataclass
class NoDisk:
    saves_failed: int = 3
    not_saved: int = 2


def told(
    tally: Tally | None = None,
    trials: Trials | None = None,
    warnings: Mapping[tuple[str, str], int] | None = None,
) -> Exposed:
    return exposed(
        EvidenceMetrics(
            tally=tally or Tally(),
            trials=trials or Trials(),
            comparing=lambda: ComparingCounts(5, 1_024, 2_500, 2, 90, 30),
            warnings=lambda: warnings or {},
            saves=NoDisk(),
            split_left_out=lambda: 7,
            out_of_turn=lambda: 8,
        )
    )


def test_comparisons_are_told_by_pair_kind_and_output() -> None:
    tally = Tally()
    results = (OutputResult("y", "mismatch"), OutputResult("label", "match"))
    tally.add(PAIR, Comparison("mismatch", "value", outputs=results))
    tally.add(PAIR, Comparison("skipped", "nothing", outputs=(OutputResult("y", "skipped"),)))
    found = told(tally)
    outputs = {
        (name, outcome): found[
            series("output_comparisons_total", **LABELS, output=name, outcome=outcome)
        ]
        for name, outcome in (("y", "mismatch"), ("y", "match"), ("y", "skipped"))
    }
    assert found[series("comparisons_total", **LABELS, outcome="mismatch")] == 1
    assert found[series("comparison_kinds_total", **LABELS, kind="value")] == 1
    assert found[series("comparison_kinds_total", **LABELS, kind="nothing")] == 1
    assert outputs == {("y", "mismatch"): 1, ("y", "match"): 0, ("y", "skipped"): 1}
    assert found[series("output_comparisons_total", **LABELS, output="label", outcome="match")] == 1


@pytest.mark.parametrize(("word", "value"), [("pass", 1), ("inconclusive", 0), ("fail", -1)])
def test_a_verdict_is_a_number(word: Word, value: float) -> None:
    trials = Trials()
    trial = trials.obtain(PAIR, KEY, 1)
    trial.verdict = trial.kept = Verdict(word)
    assert told(trials=trials)[series("verdict", **LABELS)] == value


def test_gauges_are_of_the_current_trial() -> None:
    trials = Trials()
    trials.obtain(PAIR, KEY, 1).evidence.add(a_comparison(1))
    trials.obtain(PAIR._replace(candidate="int8"), KEY, 1)
    found = told(trials=trials)
    assert found[series("mismatch_ratio", **LABELS)] == 0.25
    assert found[series("trial", **LABELS)] == 1
    other = series("mismatch_ratio", **{**LABELS, "candidate": "int8"})
    assert other not in found


def test_counters_go_on_when_a_new_trial_begins() -> None:
    tally, trials = Tally(), Trials()
    for number in range(3):
        key = KEY if number < 2 else type(KEY)("others", "definition", "1", "2")
        trials.obtain(PAIR, key, number).evidence.add(a_comparison())
        tally.add(PAIR, a_comparison())
    found = told(tally, trials)
    assert found[series("comparisons_total", **LABELS, outcome="mismatch")] == 3
    assert found[series("trial", **LABELS)] == 2


def test_how_comparing_keeps_up_and_what_is_not_kept_is_told() -> None:
    trials = Trials(TrialLimits(pairs=1))
    for candidate in "abc":
        trials.obtain(PAIR._replace(candidate=candidate), KEY, 1)
    found = told(trials=trials, warnings={("digits", "unknown_output"): 4})
    named = {name: value for (name, labels), value in found.items() if not labels}
    assert named == {
        "comparing_ratio": 0.25,
        "comparing_waiting": 5,
        "comparing_waiting_bytes": 1_024,
        "comparing_processes": 2,
        "exchanges_compared_total": 90,
        "exchanges_left_out_total": 30,
        "evidence_not_saved": 2,
        "evidence_saves_failed_total": 3,
        "evidence_left_out_total": 2,
        "split_requests_left_out_total": 7,
        "exchanges_out_of_turn_total": 8,
        "trials_forgotten_total": 0,
    }
    warned = series("comparing_warnings_total", route="digits", kind="unknown_output")
    assert found[warned] == 4

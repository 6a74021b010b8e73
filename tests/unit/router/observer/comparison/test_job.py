"""All comparisons of one request."""

import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import to_typed
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.answer_arrays import arrays_of
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer, RuleWarning
from tests.doubles.mutations import mutated
from tests.doubles.oip_backend import response_body
from tests.doubles.reports import rules

LOGITS = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]], dtype=np.float32)
LABELS = np.array([[b'{"a": 1}'], [b"x"]], dtype=object)

# A rule for each output that the bodies below have, and every rule somewhere.
EVERY_RULE = [
    rules("close"),
    rules("exact", label={"rule": "json"}),
    rules("relative", label={"rule": "bytes"}),
    rules("argmax", label={"rule": "json", "ignore": ["$.a"]}),
    rules("cosine", logits={"rule": "top_k", "k": 2, "order": True}),
    rules("close", logits={"rule": "distribution", "from": "logits"}),
    rules("ignore", logits={"rule": "distribution", "from": "probabilities"}),
]


def answer(version: str = "1", **outputs: Any) -> ComparedAnswer:
    return ComparedAnswer(response_body(version=version, **outputs))


def typed(**outputs: Any) -> bytes:
    response = oip.ModelInferResponse(model_name="m", model_version="1")
    for name, array in outputs.items():
        datatype = "BYTES" if array.dtype == object else "FP32"
        response.outputs.add(
            name=name, datatype=datatype, shape=array.shape, contents=to_typed(array)
        )
    return response.SerializeToString()


def test_comparisons_come_in_the_order_of_the_pairs_and_versions_in_that_of_the_answers() -> None:
    answers = (answer("1", y=LOGITS), answer("7", y=LOGITS + 1), ComparedAnswer(code="INTERNAL"))
    results = results_of(ComparisonJob(answers, ((0, 1), (1, 0), (0, 0), (0, 2), (2, 0)), rules()))
    assert [each.outcome for each in results.comparisons] == [
        *("mismatch", "mismatch", "match", "error", "skipped"),
    ]
    assert results.versions == ("1", "7", "")


def test_a_job_and_its_results_survive_being_pickled() -> None:
    answers = (answer(y=LOGITS), answer(y=LOGITS + 1))
    job = ComparisonJob(
        answers, ((0, 1),), rules("argmax", z={"rule": "json", "ignore": ["$.a[*]"]})
    )
    there = pickle.loads(pickle.dumps(job))
    assert there == job
    results = results_of(there)
    assert pickle.loads(pickle.dumps(results)) == results == results_of(job)


def test_what_a_process_that_compares_must_import_is_light() -> None:
    code = (
        "import sys, coalmine_router.observer.comparison.job;"
        "print([m for m in ('grpc', 'torch', 'scipy', 'opentelemetry') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_size_is_that_of_its_bodies() -> None:
    assert (
        ComparisonJob((ComparedAnswer(b"abc"), ComparedAnswer(b"de")), (), rules()).size_bytes == 5
    )


# ---------------------------------------------------------------- warnings


def warnings_of(chosen: CompareConfig, *answers: ComparedAnswer) -> tuple[RuleWarning, ...]:
    pairs = tuple((0, each) for each in range(1, len(answers)))
    return results_of(ComparisonJob(answers, pairs, chosen)).warnings


def test_a_rule_for_an_output_that_the_reference_has_not_is_told_once_a_job() -> None:
    chosen = rules(scroes={"rule": "exact"}, y={"rule": "exact"})
    found = warnings_of(chosen, answer(y=LOGITS), answer(y=LOGITS), answer(y=LOGITS + 1))
    assert found == (RuleWarning("unknown_output", "scroes"),)


def test_of_a_reference_that_gave_nothing_no_output_is_missed() -> None:
    chosen = rules(z={"rule": "exact"})
    for reference in (ComparedAnswer(code="INTERNAL"), ComparedAnswer(b"\xff")):
        assert warnings_of(chosen, reference, answer(y=LOGITS)) == ()


def test_a_rule_that_does_not_fit_is_told_with_the_reason() -> None:
    chosen = rules(label={"rule": "argmax"})
    found = warnings_of(chosen, answer(y=LOGITS, label=LABELS), answer(y=LOGITS, label=LABELS))
    assert found == (RuleWarning("rule_unfit", "label", "argmax takes no BYTES"),)


def test_answers_that_fit_the_rules_warn_of_nothing() -> None:
    assert warnings_of(rules(y={"rule": "exact"}), answer(y=LOGITS), answer(y=LOGITS)) == ()


# ---------------------------------------------------------------- whatever comes


SEEDS = [
    response_body(logits=LOGITS, label=LABELS),
    response_body(logits=LOGITS, label=LABELS, vector=LOGITS.astype(np.float16)),
    typed(logits=LOGITS, label=LABELS),
]
OUTCOMES = {"match", "mismatch", "error", "skipped", "ignored"}


def check(results: JobResults) -> None:
    """Check what holds whatever was compared."""
    for found in results.comparisons:
        assert found.outcome in OUTCOMES
        assert 0.0 <= found.share <= 1.0
        assert 0 <= found.rows_mismatch <= found.rows
        assert (found.outcome == "mismatch") is bool(found.differences)
        assert all(each.rows_mismatch <= each.rows for each in found.outputs)
        assert all(each.worst for each in found.differences)
    assert not [each for each in results.warnings if each.kind == "rule_failed"]


@pytest.mark.parametrize("chosen", EVERY_RULE, ids=lambda each: each.default.rule)
def test_whatever_becomes_of_an_answers_bytes_there_is_an_outcome(chosen: CompareConfig) -> None:
    whole = ComparedAnswer(SEEDS[0])
    for body in mutated(SEEDS, 400, seed=11):
        check(
            results_of(
                ComparisonJob(
                    (whole, ComparedAnswer(body), ComparedAnswer(body)),
                    ((0, 1), (1, 0), (1, 2)),
                    chosen,
                )
            )
        )


def test_of_the_mutants_some_are_read_and_some_refused() -> None:
    problems = [arrays_of(ComparedAnswer(body)).problem for body in mutated(SEEDS, 400, seed=11)]
    assert 20 < problems.count("") < 380


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(EVERY_RULE))
def test_noise_is_no_answer_and_harms_nobody(noise: bytes, chosen: CompareConfig) -> None:
    check(
        results_of(
            ComparisonJob(
                (ComparedAnswer(SEEDS[0]), ComparedAnswer(noise)), ((0, 1), (1, 0), (1, 1)), chosen
            )
        )
    )


@pytest.mark.parametrize("chosen", EVERY_RULE, ids=lambda each: each.default.rule)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whatever_the_values_are_there_is_an_outcome(chosen: CompareConfig, dtype: Any) -> None:
    chance = random.Random(5)
    odd = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, 6e4, -3.0]
    for _ in range(60):
        sides = [
            np.array([[chance.choice(odd) for _ in range(3)] for _ in range(2)]).astype(dtype)
            for _ in range(2)
        ]
        check(
            results_of(
                ComparisonJob(
                    tuple(answer(logits=each) for each in sides), ((0, 1), (0, 0)), chosen
                )
            )
        )

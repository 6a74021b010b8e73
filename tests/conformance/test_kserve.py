"""The core of the protocol as KServe's InferenceGRPCClient calls it."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]

# Looked for, not imported: its stubs are in the pool in which tritonclient's are.
pytestmark = pytest.mark.needs("kserve")

ROW = [64.0 * i for i in range(10)]


@pytest.fixture(scope="module")
def told(address: str) -> Told:
    answer: Told = told_by("tests.conformance.callers.by_kserve", address)
    return answer


def test_the_server_and_its_models_are_live_and_ready(told: Told) -> None:
    assert (told["live"], told["ready"]) == (True, True)
    assert (told["model_ready"], told["unknown_ready"]) == (True, False)


@pytest.mark.parametrize("given", ["raw", "typed"])
def test_rows_are_answered_whether_they_came_raw_or_typed(told: Told, given: str) -> None:
    assert told[given] == {
        "id": "k-1",
        "model": ["digits", "1"],
        "outputs": {"logits": [ROW, ROW]},
    }


def test_outputs_are_those_asked_for(told: Told) -> None:
    assert told["outputs"]["outputs"] == {"length": [[3]]}
    assert told["both"]["outputs"] == {"doubled": [[2, 4, 6]], "length": [[3]]}


@pytest.mark.parametrize("given", ["words", "typed_words"])
def test_words_come_back_whether_they_came_raw_or_typed(told: Told, given: str) -> None:
    assert told[given]["outputs"] == {"twice": [["abab"], ["üü"]]}


def test_half_precision_comes_back(told: Told) -> None:
    assert told["half"]["outputs"] == {"y_fp16": [[1.0, 1.0]], "y_bool": [[True, True]]}


def test_what_can_not_be_answered_is_told_by_its_code(told: Told) -> None:
    assert told["unknown"]["status"] == "NOT_FOUND"
    assert told["small"]["status"] == "INVALID_ARGUMENT"
    assert "expects FP32 [-1, 64], got FP32 [1, 63]" in told["small"]["message"]
    assert told["late"]["status"] == "DEADLINE_EXCEEDED"

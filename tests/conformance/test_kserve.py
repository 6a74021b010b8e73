"""The core of the protocol as KServe's InferenceGRPCClient calls it."""

import pytest

from tests.doubles.server_process import Output, output_of

# Looked for, not imported: its stubs are in the pool in which tritonclient's are.
pytestmark = pytest.mark.needs("kserve")

ROW = [64.0 * i for i in range(10)]


@pytest.fixture(scope="module")
def output(address: str) -> Output:
    return output_of("tests.conformance.callers.by_kserve", address)


def test_the_server_and_its_models_are_live_and_ready(output: Output) -> None:
    assert (output["live"], output["ready"]) == (True, True)
    assert (output["model_ready"], output["unknown_ready"]) == (True, False)


@pytest.mark.parametrize("given", ["raw", "typed"])
def test_rows_are_answered_whether_they_came_raw_or_typed(output: Output, given: str) -> None:
    assert output[given] == {
        "id": "k-1",
        "model": ["digits", "1"],
        "outputs": {"logits": [ROW, ROW]},
    }


def test_outputs_are_those_asked_for(output: Output) -> None:
    assert output["outputs"]["outputs"] == {"length": [[3]]}
    assert output["both"]["outputs"] == {"doubled": [[2, 4, 6]], "length": [[3]]}


@pytest.mark.parametrize("given", ["words", "typed_words"])
def test_words_come_back_whether_they_came_raw_or_typed(output: Output, given: str) -> None:
    assert output[given]["outputs"] == {"twice": [["abab"], ["üü"]]}


def test_half_precision_comes_back(output: Output) -> None:
    assert output["half"]["outputs"] == {"y_fp16": [[1.0, 1.0]], "y_bool": [[True, True]]}


def test_what_can_not_be_answered_is_told_by_its_code(output: Output) -> None:
    assert output["unknown"]["status"] == "NOT_FOUND"
    assert output["small"]["status"] == "INVALID_ARGUMENT"
    assert "expects FP32 [-1, 64], got FP32 [1, 63]" in output["small"]["message"]
    assert output["late"]["status"] == "DEADLINE_EXCEEDED"

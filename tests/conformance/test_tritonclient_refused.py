"""What tritonclient is told where a request can't be answered, sync and asyncio."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]


@pytest.fixture(scope="module", params=["sync", "aio"])
def told(address: str, request: pytest.FixtureRequest) -> Told:
    caller = "tests.conformance.callers.refused"
    answer: Told = told_by(caller, request.param, address)
    return answer


@pytest.mark.parametrize(
    ("given", "code", "texts"),
    [
        ("unknown_model", "NOT_FOUND", ["model 'nobody'"]),
        ("unknown_version", "NOT_FOUND", ["model 'digits'", "'9'"]),
        ("unknown_label", "NOT_FOUND", ["model 'digits'", "'best'"]),
        ("unknown_input", "INVALID_ARGUMENT", ["'pixel' is unknown, expected 'pixels'"]),
        ("no_input", "INVALID_ARGUMENT", ["'pixels' is missing"]),
        ("input_twice", "INVALID_ARGUMENT", ["'pixels' came twice"]),
        ("datatype", "INVALID_ARGUMENT", ["expects FP32 [-1, 64], got FP64 [1, 64]"]),
        ("size", "INVALID_ARGUMENT", ["expects FP32 [-1, 64], got FP32 [1, 63]"]),
        ("rank", "INVALID_ARGUMENT", ["expects FP32 [-1, 64], got FP32 [64]"]),
        ("rows", "INVALID_ARGUMENT", ["expects 1 to 32 rows, got 33"]),
        ("no_rows", "INVALID_ARGUMENT", ["expects 1 to 32 rows, got 0"]),
        ("no_bytes", "INVALID_ARGUMENT", ["model 'digits' version 2", "'pixels'"]),
        ("too_long", "INVALID_ARGUMENT", ["'tokens' came twice"]),
        ("unknown_output", "INVALID_ARGUMENT", ["output 'nothing' is unknown, expected 'logits'"]),
        ("raised", "INTERNAL", ["model 'raises' version 1", "negative pixel"]),
        ("late", "DEADLINE_EXCEEDED", []),
    ],
)
def test_a_request_that_is_wrong_is_told_how(
    told: Told, given: str, code: str, texts: list[str]
) -> None:
    assert told[given]["status"] == f"StatusCode.{code}", told[given]
    for text in texts:
        assert text in told[given]["message"]


@pytest.mark.parametrize(
    "given",
    [
        *("shared_memory", "register_memory", "cuda_memory", "trace", "log"),
        *("sequence", "classification"),
    ],
)
def test_what_is_not_offered_says_so(told: Told, given: str) -> None:
    assert told[given]["status"] == "StatusCode.UNIMPLEMENTED", told[given]


def test_what_came_before_does_not_harm_the_next_request(told: Told) -> None:
    assert told["still"] == [1, 10]

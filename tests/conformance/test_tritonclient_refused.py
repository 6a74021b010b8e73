"""What tritonclient is told where a request can't be answered, sync and asyncio."""

import pytest

from tests.doubles.server_process import Output, output_of


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(address: str, request: pytest.FixtureRequest) -> Output:
    caller = "tests.conformance.callers.refused"
    return output_of(caller, request.param, address)


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
    output: Output, given: str, code: str, texts: list[str]
) -> None:
    assert output[given]["status"] == f"StatusCode.{code}", output[given]
    for text in texts:
        assert text in output[given]["message"]


@pytest.mark.parametrize(
    "given",
    [
        *("shared_memory", "register_memory", "cuda_memory", "trace", "log"),
        *("sequence", "classification"),
    ],
)
def test_what_is_not_offered_says_so(output: Output, given: str) -> None:
    assert output[given]["status"] == "StatusCode.UNIMPLEMENTED", output[given]


def test_what_came_before_does_not_harm_the_next_request(output: Output) -> None:
    assert output["still"] == [1, 10]

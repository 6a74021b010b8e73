"""Typed contents, sent through tritonclient's generated stubs."""

import pytest

from tests.doubles.server_process import Output, output_of


@pytest.fixture(scope="module")
def output(address: str) -> Output:
    return output_of("tests.conformance.callers.typed", address)


def test_every_datatype_with_typed_contents_comes_back_typed(output: Output) -> None:
    assert output["numbers"] == {
        "same": dict.fromkeys(output["numbers"]["same"], True),
        "raw": 0,
        "id": "t-1",
    }
    assert len(output["numbers"]["same"]) == 11


def test_typed_words_come_back_typed(output: Output) -> None:
    assert output["words"] == ["abab", "üü"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("out_of_range", "'x_uint8'"),
        ("too_few", "'x_int64'"),
        ("half", ""),
        ("mixed", "'pixels'"),
    ],
)
def test_typed_contents_that_do_not_fit_are_an_invalid_argument(
    output: Output, given: str, text: str
) -> None:
    assert output[given]["status"] == "StatusCode.INVALID_ARGUMENT", output[given]
    assert text in output[given]["message"]

"""Typed contents, sent through tritonclient's generated stubs."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]


@pytest.fixture(scope="module")
def told(address: str) -> Told:
    answer: Told = told_by("tests.conformance.callers.typed", address)
    return answer


def test_every_datatype_with_typed_contents_comes_back_typed(told: Told) -> None:
    assert told["numbers"] == {
        "same": dict.fromkeys(told["numbers"]["same"], True),
        "raw": 0,
        "id": "t-1",
    }
    assert len(told["numbers"]["same"]) == 11


def test_typed_words_come_back_typed(told: Told) -> None:
    assert told["words"] == ["abab", "üü"]


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
    told: Told, given: str, text: str
) -> None:
    assert told[given]["status"] == "StatusCode.INVALID_ARGUMENT", told[given]
    assert text in told[given]["message"]

"""A serialised answer as arrays by name."""

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from coalmine_router.observer.comparison.answer_arrays import OUTPUTS_MAX, AnswerArrays, arrays_of
from coalmine_router.observer.comparison.result import ComparedAnswer
from tests.doubles.oip_backend import response_body


def test_an_answers_outputs_and_version_are_read() -> None:
    found = arrays_of(ComparedAnswer(response_body(version="12", y=np.ones((2, 3), np.float32))))
    assert (list(found.tensors), found.version, found.problem) == (["y"], "12", "")
    assert found.tensors["y"].array.shape == (2, 3)


def test_of_a_failed_call_nothing_is_read() -> None:
    assert arrays_of(ComparedAnswer(b"\xff", code="INTERNAL")) == AnswerArrays()


def test_a_version_without_end_is_cut() -> None:
    assert len(arrays_of(ComparedAnswer(response_body(version="9" * 10_000))).version) == 128


@pytest.mark.parametrize(
    "field",
    [b"\x2a\x00", b"\x32\x00", b"\x22\x00", b"\x2a\x02\x22\x00"],
    ids=["outputs", "raw contents", "parameters", "outputs with parameters"],
)
def test_fields_without_number_cost_no_more_than_their_bytes(field: bytes) -> None:
    body = field * (8 * 1024**2 // len(field))
    tracemalloc.start()
    began = time.process_time()
    found = arrays_of(ComparedAnswer(body))
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.problem
    assert took < 2
    assert peak < len(body)


def test_of_few_outputs_too_many_a_number_is_told() -> None:
    names: dict[str, Any] = {f"y{each}": np.zeros(1, np.int8) for each in range(OUTPUTS_MAX + 1)}
    assert arrays_of(ComparedAnswer(response_body(**names))).problem == (
        f"{OUTPUTS_MAX + 1} outputs, at most {OUTPUTS_MAX} are compared"
    )

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from coalmine.control.v1 import control_pb2 as pb
from coalmine.tensors import Tensor
from coalmine_client.cli.mismatch_bodies import distances, element_text, read_bodies, tensor_json
from tests.doubles.control import CANDIDATE, REFERENCE, a_mismatch, response_body


def apart(reference: Any, candidate: Any, dtype: Any = np.float32) -> Any:
    return distances(np.array(reference, dtype), np.array(candidate, dtype)).tolist()


def test_a_mismatchs_bodies_become_tensors_by_name() -> None:
    kept = read_bodies(a_mismatch(bodies=True))

    assert kept.request.tensors["pixels"].array.shape == (1, 64)
    np.testing.assert_array_equal(kept.reference.tensors["logits"].array, REFERENCE)
    np.testing.assert_array_equal(kept.candidate.tensors["logits"].array, CANDIDATE)


def test_a_mismatch_without_bodies_has_no_tensors_and_no_trouble() -> None:
    kept = read_bodies(a_mismatch())

    assert kept.reference.tensors == {}
    assert kept.reference.unreadable == ""


@pytest.mark.parametrize("body", [b"\xff\xff", response_body(REFERENCE)[:-3]])
def test_a_body_that_cant_be_read_says_why_and_leaves_the_others(body: Any) -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = body

    kept = read_bodies(mismatch)

    assert kept.candidate.tensors == {}
    assert kept.candidate.unreadable
    assert kept.reference.tensors


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], [0, 0.5]),
        ([np.nan], [np.nan], [0]),
        ([np.nan], [1.0], [np.inf]),
        ([1.0], [np.nan], [np.inf]),
        ([np.inf], [np.inf], [0]),
        ([np.inf], [-np.inf], [np.inf]),
        ([0.0], [-0.0], [0]),
    ],
)
def test_the_distance_of_two_elements_is_that_of_numbers(
    reference: Any, candidate: Any, expected: Any
) -> None:
    assert apart(reference, candidate) == expected


def test_large_integers_that_differ_by_one_are_apart() -> None:
    assert apart([2**62], [2**62 + 1], np.int64)[0] > 0
    assert apart([0], [2**64 - 1], np.uint64)[0] > 1e19


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int8, np.uint64])
def test_every_number_has_a_distance(dtype: Any) -> None:
    assert apart([1, 2], [1, 4], dtype) == [0, 2]


def test_texts_and_booleans_are_equal_or_infinitely_apart() -> None:
    assert apart([b"a", b"b"], [b"a", b"c"], object) == [0, np.inf]
    assert apart([True, True], [True, False], bool) == [0, np.inf]


@given(arrays(np.float32, (3,)))
def test_an_array_is_nowhere_apart_from_itself(array: Any) -> None:
    assert not distances(array, array).any()


@pytest.mark.parametrize(
    ("tensor", "data"),
    [
        (Tensor("x", "FP32", np.array([[1, np.nan]], np.float32)), [1.0, "NaN"]),
        (Tensor("x", "FP64", np.array([np.inf, -np.inf])), ["Infinity", "-Infinity"]),
        (Tensor("x", "BF16", np.array([1.5], ml_dtypes.bfloat16)), [1.5]),
        (Tensor("x", "INT64", np.array([2**62])), [2**62]),
        (Tensor("x", "BOOL", np.array([True])), [True]),
        (Tensor("x", "BYTES", np.array([b"a", b"\xff"], object)), ["a", "\\xff"]),
    ],
)
def test_elements_of_every_kind_have_a_place_in_json(tensor: Any, data: Any) -> None:
    written = json.loads(json.dumps(tensor_json(tensor), allow_nan=False))

    assert written == {"datatype": tensor.datatype, "shape": list(tensor.array.shape), "data": data}


def test_an_element_is_written_as_short_as_tells_it_apart() -> None:
    assert element_text(Tensor("x", "FP32", np.array([0.1], np.float32)), 0) == "0.1"
    assert element_text(Tensor("x", "FP64", np.array([0.1 + 0.2])), 0) == "0.30000000000000004"
    assert element_text(Tensor("x", "BYTES", np.array([b"\x1b["], object)), 0) == r"'\x1b['"


def test_the_json_of_a_kept_mismatch_holds_all_three_bodies() -> None:
    written = read_bodies(pb.Mismatch(candidate_response=response_body(REFERENCE))).as_json()

    assert written["candidate_response"]["tensors"]["logits"]["shape"] == [1, 10]
    assert written["request"] == {"tensors": {}, "unreadable": ""}
    assert written["reference_response"]["tensors"] == {}

"""Values become the model's datatype where none of them changes."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidTensor
from coalmine.tensors import numpy_dtype
from coalmine_client.exact_values import as_array, as_datatype

NUMBERS = ["BOOL", "UINT8", "INT8", "INT32", "INT64", "UINT64", "FP16", "BF16", "FP32", "FP64"]


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([0.5, -3.0, np.inf, np.nan, -0.0]), "FP32"),
        (np.array([0.5, 3.0]), "BF16"),
        (np.array([1, 2**24]), "FP32"),
        (np.array([-(2**63)]), "FP32"),
        (np.array([2**63], np.uint64), "FP32"),
        (np.array([3, 4]), "INT32"),
        (np.array([3.0, -4.0]), "INT64"),
        (np.array([True, False]), "FP32"),
        (np.array([0, 1]), "BOOL"),
        (np.array([1.5], ml_dtypes.bfloat16), "FP32"),
        (np.array([2.0], ml_dtypes.bfloat16), "INT8"),
        (np.zeros((0, 3)), "FP32"),
        (np.array([1.5], ">f8"), "FP32"),
        ([1, 2, 3], "FP32"),
        ([[1, 2], [3, 4]], "INT64"),
        (7, "UINT8"),
        ([], "FP32"),
        ([float("inf"), float("nan")], "FP16"),
    ],
)
def test_what_stays_as_it_is_is_converted(value: Any, datatype: str) -> None:
    became = as_datatype("x", value, datatype)

    assert became.dtype == numpy_dtype(datatype)
    np.testing.assert_array_equal(became.astype("f8"), np.asarray(value).astype("f8"))


@pytest.mark.parametrize(
    ("value", "datatype", "said"),
    [
        (np.array([[0.5, 0.1]]), "FP32", r"'x': FP32 can't hold 0.1 at \[0, 1\] exactly"),
        (np.array([1e300]), "FP32", "1e"),
        (np.array([2**24 + 1]), "FP32", "16777217"),
        (np.array([2**63 - 1]), "FP64", str(2**63 - 1)),
        (np.array([2**64 - 1], np.uint64), "FP64", str(2**64 - 1)),
        (np.array([70000]), "FP16", "70000"),
        (np.array([300]), "UINT8", "300"),
        (np.array([-1]), "UINT64", "-1"),
        (np.array([2**63], np.uint64), "INT64", str(2**63)),
        (np.array([2.0**63]), "INT64", "9.2"),
        (np.array([1.5]), "INT32", "1.5"),
        (np.array([np.nan]), "INT32", "nan"),
        (np.array([2]), "BOOL", "2"),
        (np.float64(0.1), "FP32", "0.1"),
        ([2**24 + 1], "FP32", "16777217"),
        ([0.5, 2**24 + 1], "FP32", "16777217"),
        ([1e300], "FP32", "1e"),
        ([1.5], "INT64", "1.5"),
        ([2**70], "INT64", "can't be INT64"),
        ([1j], "FP32", "complex"),
        (["a"], "FP32", "can't be FP32"),
        ([[1], [2, 3]], "FP32", "no array"),
    ],
)
def test_what_would_change_is_refused_by_name_datatype_and_value(
    value: Any, datatype: str, said: str
) -> None:
    with pytest.raises(InvalidTensor, match=said) as caught:
        as_datatype("x", value, datatype)

    assert "'x'" in str(caught.value)


def test_pythons_floats_are_rounded_as_numpy_does() -> None:
    np.testing.assert_array_equal(as_datatype("x", [0.1], "FP32"), np.array([0.1], np.float32))


def test_an_array_of_the_models_datatype_is_not_copied() -> None:
    array = np.ones(3, np.float32)

    assert as_datatype("x", array, "FP32") is array


def test_bytes_keep_the_zeros_at_their_end() -> None:
    assert as_datatype("x", [b"a\0", b"b"], "BYTES").tolist() == [b"a\0", b"b"]
    assert as_array("x", [b"a\0"]).tolist() == [b"a\0"]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300), min_size=1),
    st.sampled_from(NUMBERS),
)
def test_an_int_is_taken_if_and_only_if_it_is_the_same_afterwards(
    values: list[int], datatype: str
) -> None:
    array = np.array(values, np.int64)
    try:
        became = as_datatype("x", array, datatype).tolist()
    except InvalidTensor:
        with np.errstate(over="ignore", invalid="ignore"):
            became = array.astype(numpy_dtype(datatype)).astype("f8").tolist()
        ranged = numpy_dtype(datatype).kind in "biu"
        assert ranged or became != values or any(int(float(each)) != each for each in values)
    else:
        assert [int(each) for each in became] == values

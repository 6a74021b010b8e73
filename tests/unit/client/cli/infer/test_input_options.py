import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.command_line.failure import WrongUsage
from coalmine_client.cli.infer.input_options import (
    array_from_json,
    needs_datatypes,
    read_headers,
    read_inputs,
    split_rows,
)


def fp32(_name: str) -> str:
    return "FP32"


def never_asked(name: str) -> str:
    raise AssertionError(name)


@pytest.fixture
def npy(tmp_path: Path) -> Any:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float64).reshape(3, 2))
    return path


def test_a_npy_file_is_taken_with_its_own_dtype_and_shape(npy: str) -> None:
    pixels = read_inputs([f"pixels=@{npy}"], never_asked)["pixels"]

    assert pixels.dtype == np.float64
    assert pixels.shape == (3, 2)


def test_inline_json_and_a_json_file_take_the_models_datatype(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[[1, 2]]")

    inputs = read_inputs(["a=[[1, 2]]", f"b=@{tmp_path}/x.json"], fp32)

    assert inputs["a"].dtype == inputs["b"].dtype == np.float32
    np.testing.assert_array_equal(inputs["a"], inputs["b"])


@pytest.mark.parametrize(
    ("texts", "needed"),
    [(["a=@x.npy"], False), (["a=@x.npy", "b=@x.json"], True), (["a=[1]"], True), ([], False)],
)
def test_only_json_needs_the_models_datatypes(texts: Any, needed: Any) -> None:
    assert needs_datatypes(texts) is needed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pixels", "expected NAME=@file.npy"),
        ("pixels=", "expected NAME=@file.npy"),
        ("=[1]", "expected NAME=@file.npy"),
        ("pixels=@nowhere.npy", "nowhere.npy: No such file or directory"),
        ("pixels=@/", "Is a directory"),
        ("pixels=[1,", "is not JSON"),
        ("pixels=[[1],[2,3]]", "not of equal length"),
        ("pixels=[true]", "expects FP32, got booleans"),
        ('pixels=["x"]', "expects FP32, got text"),
        ('pixels={"a": 1}', "expects FP32, got something else"),
        ("pixels=[null]", "expects FP32, got something else"),
    ],
)
def test_an_input_that_cant_be_read_is_wrong_usage(text: Any, why: Any) -> None:
    with pytest.raises(WrongUsage, match=why):
        read_inputs([text], fp32)


def test_an_input_that_is_given_twice_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="'a' is given twice"):
        read_inputs(["a=1", "a=2"], fp32)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"pickle", b"\x80\x04N."])
def test_a_file_that_is_no_npy_is_wrong_usage(tmp_path: Path, content: Any) -> None:
    (tmp_path / "x.npy").write_bytes(content)

    with pytest.raises(WrongUsage, match=r"is not a \.npy file"):
        read_inputs([f"a=@{tmp_path}/x.npy"], never_asked)


def test_a_file_with_pickled_objects_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))

    with pytest.raises(WrongUsage, match=r"is not a \.npy file"):
        read_inputs([f"a=@{tmp_path}/x.npy"], never_asked)


def test_an_archive_of_several_arrays_is_wrong_usage(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(1))

    with pytest.raises(WrongUsage, match="several arrays"):
        read_inputs([f"a=@{tmp_path}/x.npz"], never_asked)


def test_a_json_file_that_is_not_text_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")

    with pytest.raises(WrongUsage, match="is not UTF-8"):
        read_inputs([f"a=@{tmp_path}/x.json"], fp32)


@pytest.mark.parametrize(
    ("datatype", "text", "expected"),
    [
        ("UINT8", "[0, 255]", np.array([0, 255], np.uint8)),
        ("INT64", f"[{-(2**63)}]", np.array([-(2**63)])),
        ("UINT64", f"[{2**64 - 1}]", np.array([2**64 - 1], np.uint64)),
        ("BOOL", "[true, false]", np.array([True, False])),
        ("FP64", "[1, 2.5]", np.array([1, 2.5])),
        ("FP16", "[0.5]", np.array([0.5], np.float16)),
        ("BF16", "[1, 2]", np.array([1, 2], ml_dtypes.bfloat16)),
        ("BYTES", '["a", "ß"]', np.array(["a", "ß"], object)),
        ("FP32", "[]", np.zeros(0, np.float32)),
        ("FP32", "3", np.float32(3)),
    ],
)
def test_json_becomes_an_array_of_the_datatype(datatype: Any, text: Any, expected: Any) -> None:
    array = array_from_json("x", text, datatype)

    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("datatype", "text", "why"),
    [
        ("UINT8", "[256]", "UINT8 holds 0 to 255"),
        ("UINT8", "[-1]", "UINT8 holds 0 to 255"),
        ("INT8", "[1.5]", "expects INT8, got fractions"),
        ("INT64", f"[{2**63}]", "INT64 holds"),
        ("INT32", f"[{2**70}]", "expects INT32"),
        ("BOOL", "[1]", "expects BOOL, got integers"),
        ("BYTES", "[1]", "expects BYTES, got integers"),
        ("FP8", "[1]", "unknown datatype 'FP8'"),
    ],
)
def test_a_value_that_the_datatype_cant_hold_is_refused_rather_than_changed(
    datatype: Any, text: Any, why: Any
) -> None:
    with pytest.raises(WrongUsage, match=why):
        array_from_json("x", text, datatype)


@given(st.lists(st.integers(-128, 127), min_size=1))
def test_integers_in_json_arrive_unchanged(values: Any) -> None:
    assert array_from_json("x", json.dumps(values), "INT8").tolist() == values


def test_rows_become_requests_that_keep_a_first_axis_of_one() -> None:
    requests = split_rows({"a": np.arange(6).reshape(3, 2), "b": np.arange(3)})

    assert [(each["a"].shape, each["b"].shape) for each in requests] == [((1, 2), (1,))] * 3
    assert requests[2]["a"].tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({}, "no rows"),
        ({"a": np.float32(1)}, "input 'a' has no rows"),
        ({"a": np.zeros((0, 2))}, "no rows"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "different numbers of rows"),
    ],
)
def test_inputs_without_equally_many_rows_cant_be_split(inputs: Any, why: Any) -> None:
    with pytest.raises(WrongUsage, match=why):
        split_rows({name: np.asarray(each) for name, each in inputs.items()})


def test_headers_become_metadata_with_keys_in_small_letters_and_bin_as_bytes() -> None:
    assert read_headers(["X-User-Id=u=1", "k-bin=ß"]) == [
        ("x-user-id", "u=1"),
        ("k-bin", "ß".encode()),
    ]


@pytest.mark.parametrize("text", ["x", "=v", "a b=c", "grpc-timeout=1S", "ü=1", "x=ß", "x=\n"])
def test_a_header_that_grpc_would_refuse_is_wrong_usage(text: Any) -> None:
    with pytest.raises(WrongUsage, match="header"):
        read_headers([text])

"""A request as JSON, and back to the bit."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.command_line.failure import WrongUsage
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import (
    BYTES,
    DATATYPES,
    Tensor,
    decode_inputs,
    encode_inputs,
    numpy_dtype,
    to_typed,
)
from coalmine_client.cli.request_json import read_request, request_json


def again(request: pb.ModelInferRequest) -> pb.ModelInferRequest:
    """Return the request after it was written and read."""
    return read_request(json.dumps(request_json(request), allow_nan=False))


def of(*tensors: Tensor) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest()
    encode_inputs(request, tensors)
    return request


def tensor(datatype: str, *elements: Any) -> Tensor:
    return Tensor("x", datatype, np.array(elements, numpy_dtype(datatype)))


def bits(datatype: str, *elements: int) -> Tensor:
    dtype = numpy_dtype(datatype)
    return Tensor("x", datatype, np.array(elements, f"<u{dtype.itemsize}").view(dtype))


def data(each: Tensor) -> Any:
    return request_json(of(each))["inputs"][0]["data"]


@given(
    datatype=st.sampled_from([each for each in DATATYPES if each not in {BYTES, "BOOL"}]),
    raw=st.lists(st.binary(min_size=8, max_size=8), max_size=5),
)
def test_any_bits_of_any_datatype_survive(datatype: str, raw: list[bytes]) -> None:
    size = numpy_dtype(datatype).itemsize
    blob = b"".join(each[:size] for each in raw)
    request = pb.ModelInferRequest(raw_input_contents=[blob])
    request.inputs.add(name="x", datatype=datatype, shape=[len(raw), 1])

    assert again(request) == request


@given(st.lists(st.binary(max_size=6), max_size=5))
def test_any_bytes_survive(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    request = of(Tensor("x", BYTES, array))

    assert again(request) == request


@pytest.mark.parametrize(
    ("each", "written"),
    [
        (tensor("FP32", 0.1, -0.0, 1e-45), [0.10000000149011612, -0.0, 1.401298464324817e-45]),
        (tensor("FP16", 65504, 0.1), [65504.0, 0.0999755859375]),
        (tensor("BF16", 1.5, 0.1), [1.5, 0.10009765625]),
        (tensor("FP64", np.nan, np.inf, -np.inf), ["NaN", "Infinity", "-Infinity"]),
        (tensor("BF16", np.nan, np.inf), ["NaN", "Infinity"]),
        (bits("FP32", 0x7FC00001, 0xFFC00000), ["NaN(0x7fc00001)", "NaN(0xffc00000)"]),
        (bits("BF16", 0x7FC1), ["NaN(0x7fc1)"]),
        (bits("FP16", 0x7C01), ["NaN(0x7c01)"]),
        (bits("FP64", 0xFFF0000000000001), ["NaN(0xfff0000000000001)"]),
        (tensor("UINT64", 2**64 - 1), [2**64 - 1]),
        (tensor("BOOL", True, False), [True, False]),
        (tensor(BYTES, b"", "né".encode(), b"a\x00"), ["", "né", "a\x00"]),
        (Tensor("x", BYTES, np.array([b"\xff"], object)), [{"b64": "/w=="}]),
        (Tensor("x", "FP32", np.zeros((0, 3), np.float32)), []),
        (Tensor("x", "FP32", np.array(2, np.float32)), [2.0]),
    ],
)
def test_every_element_has_its_word_and_is_read_back_from_it(each: Tensor, written: Any) -> None:
    assert data(each) == written
    assert again(of(each)) == of(each)


def test_a_request_has_the_form_of_the_protocol() -> None:
    request = of(tensor("FP32", 1, 2))
    request.id = "r-1"
    request.model_name = "digits"
    request.parameters["user"].string_param = "u1"
    request.inputs[0].parameters["scale"].double_param = 1.0
    request.outputs.add(name="y").parameters["classification"].int64_param = 3

    assert request_json(request) == {
        "id": "r-1",
        "parameters": {"user": "u1"},
        "inputs": [
            {
                "name": "x",
                "parameters": {"scale": 1.0},
                "datatype": "FP32",
                "shape": [2],
                "data": [1.0, 2.0],
            }
        ],
        "outputs": [{"name": "y", "parameters": {"classification": 3}}],
    }
    read = again(request)
    read.model_name = "digits"
    assert read == request


@pytest.mark.parametrize(
    ("field", "value", "written"),
    [
        ("bool_param", True, True),
        ("int64_param", -(2**63), -(2**63)),
        ("string_param", "", ""),
        ("double_param", 2.0, 2.0),
        ("double_param", float("inf"), {"double": "Infinity"}),
        ("uint64_param", 2**64 - 1, 2**64 - 1),
        ("uint64_param", 5, {"uint64": 5}),
    ],
)
def test_a_parameter_keeps_its_kind(field: str, value: Any, written: Any) -> None:
    request = of(tensor("FP32", 1))
    setattr(request.parameters["p"], field, value)

    assert request_json(request)["parameters"] == {"p": written}
    assert again(request) == request


def test_a_parameter_without_a_value_stays_one() -> None:
    request = of(tensor("FP32", 1))
    request.parameters["p"].SetInParent()

    assert again(request) == request


def test_typed_contents_come_back_raw() -> None:
    typed = pb.ModelInferRequest()
    array = np.array([1, 2], np.int16)
    typed.inputs.add(name="x", datatype="INT16", shape=[2]).contents.CopyFrom(to_typed(array))

    (read,) = decode_inputs(again(typed))

    np.testing.assert_array_equal(read.array, array)


def test_lists_in_lists_are_read_too() -> None:
    text = (
        '{"inputs": [{"name": "x", "datatype": "INT8", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]}'
    )

    (read,) = decode_inputs(read_request(text))

    np.testing.assert_array_equal(read.array, np.array([[1, 2], [3, 4]], np.int8))


def one_input(**told: Any) -> str:
    fields = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    return json.dumps({"inputs": [{**fields, **told}]})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "the request: expected an object"),
        ("{}", "'inputs' is missing"),
        ('{"inputs": {}}', "inputs: expected a list"),
        ('{"inputs": [], "model_name": "m"}', "unknown key 'model_name'"),
        ('{"inputs": [], "id": 5}', "id: expected a text, got 5"),
        ('{"inputs": [], "id": "\\ud800"}', "id: expected a text"),
        ('{"inputs": [], "parameters": []}', "parameters: expected an object"),
        ('{"inputs": [], "parameters": {"p": [1]}}', r"parameter 'p': can't be \[1\]"),
        ('{"inputs": [], "parameters": {"p": {"uint64": -1}}}', "parameter 'p'"),
        ('{"inputs": [], "parameters": {"p": {}}}', "parameter 'p'"),
        ('{"inputs": [], "parameters": {"p": 18446744073709551616}}', "parameter 'p'"),
        ('{"inputs": [], "outputs": ["y"]}', "an output: expected an object"),
        ('{"inputs": [{"name": "x"}]}', "an input: 'data' is missing"),
        (one_input(datatype="FP8"), "input 'x': unknown datatype 'FP8'"),
        (one_input(shape=[-1]), "negative size"),
        (one_input(shape=[True]), "shape: expected a list of whole numbers"),
        (one_input(shape=[2]), r"shape \[2\] takes 2 elements, got 1"),
        (one_input(data=5), "data: expected a list"),
        (one_input(data=[True]), "FP32 expects numbers, got True"),
        (one_input(data=["1"]), "FP32 expects numbers, got '1'"),
        (one_input(data=[1e39]), "FP32 does not reach to 1e[+]39"),
        (one_input(data=[10**400]), "FP32 does not reach to 1000"),
        (one_input(data=["NaN(0x3f800000)"]), "not the bits of a NaN of FP32"),
        (one_input(data=["NaN(0x7ff8000000000001)"]), "not the bits of a NaN of FP32"),
        (one_input(datatype="INT8", data=[128]), "INT8 holds -128 to 127, got 128"),
        (one_input(datatype="INT8", data=[1.0]), "INT8 holds -128 to 127, got 1.0"),
        (one_input(datatype="BOOL", data=[1]), "BOOL expects true or false, got 1"),
        (one_input(datatype="BYTES", data=[1]), "BYTES expects texts"),
        (one_input(datatype="BYTES", data=[{"b64": "?"}]), "not base64"),
        (one_input(datatype="BYTES", data=["\ud800"]), "surrogates not allowed"),
    ],
)
def test_a_file_that_is_no_request_says_why(text: str, why: str) -> None:
    with pytest.raises(WrongUsage, match=why):
        read_request(text)


def test_bf16_is_no_wider_than_it_is() -> None:
    assert data(Tensor("x", "BF16", np.array([1 / 3], ml_dtypes.bfloat16))) == [0.333984375]

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import (
    BYTES,
    DATATYPES,
    RANK_MAX,
    Tensor,
    datatype_of,
    decode_inputs,
    decode_outputs,
    elements_of,
    encode_inputs,
    encode_outputs,
    from_raw,
    from_typed,
    numpy_dtype,
    to_raw,
    to_typed,
)

EXAMPLES = {
    "BOOL": np.array([[True], [False]]),
    "UINT8": np.array([[0], [255]], np.uint8),
    "UINT16": np.array([[0], [65_535]], np.uint16),
    "UINT32": np.array([[0], [2**32 - 1]], np.uint32),
    "UINT64": np.array([[0], [2**64 - 1]], np.uint64),
    "INT8": np.array([[-128], [127]], np.int8),
    "INT16": np.array([[-(2**15)], [2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31)], [2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63)], [2**63 - 1]], np.int64),
    "FP16": np.array([[0.5], [65_504]], np.float16),
    "BF16": np.array([[0.5], [-3]], ml_dtypes.bfloat16),
    "FP32": np.array([[1e-45], [3.4e38]], np.float32),
    "FP64": np.array([[5e-324], [1.7e308]]),
    BYTES: np.array([[b"a\0"], [b""]], object),
}
TYPED = [name for name in DATATYPES if name not in {"FP16", "BF16"}]
RAW_ONLY = ["FP16", "BF16"]


def test_there_is_an_example_of_every_datatype() -> None:
    assert set(EXAMPLES) == set(DATATYPES)
    assert len(DATATYPES) == 14


# ---------------------------------------------------------------- datatypes


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_datatype_and_its_numpy_dtype_name_each_other(datatype: Any) -> None:
    assert datatype_of(numpy_dtype(datatype)) == datatype
    assert datatype_of(EXAMPLES[datatype].dtype) == datatype


def test_big_endian_arrays_have_the_same_datatype_and_travel_little_endian() -> None:
    array = np.array([1, 2], ">i2")

    assert datatype_of(array.dtype) == "INT16"
    assert to_raw(array) == b"\x01\0\x02\0"


@pytest.mark.parametrize("dtype", ["S3", "U3", "O"])
def test_texts_of_every_kind_are_bytes(dtype: Any) -> None:
    assert datatype_of(np.dtype(dtype)) == BYTES


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "longdouble", "V4"])
def test_a_dtype_that_the_protocol_has_no_name_for_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidTensor, match="has no datatype"):
        datatype_of(np.dtype(dtype))


@pytest.mark.parametrize("datatype", ["", "fp32", "FP8", "STRING"])
def test_an_unknown_datatype_is_refused_with_those_there_are(datatype: Any) -> None:
    with pytest.raises(InvalidTensor, match=f"unknown datatype '{datatype}', expected one of BOOL"):
        numpy_dtype(datatype)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ([-1], "negative size"),
        ([2, -(2**63)], "negative size"),
        ([1] * (RANK_MAX + 1), "33 dimensions, at most 32"),
        ([2**62], "too large"),
        ([0, 2**62], "too large"),
        ([2**40, 2**40, 2**40], "too large"),
    ],
)
def test_a_shape_that_no_array_has_is_refused(shape: Any, why: Any) -> None:
    with pytest.raises(InvalidTensor, match=why):
        elements_of(shape)


@pytest.mark.parametrize(("shape", "elements"), [([], 1), ([0, 5], 0), ([2, 3], 6)])
def test_the_elements_of_a_shape_are_its_product(shape: Any, elements: Any) -> None:
    assert elements_of(shape) == elements


# ---------------------------------------------------------------- raw


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents_of_every_datatype_come_back_as_they_went(datatype: Any) -> None:
    array = EXAMPLES[datatype]

    back = from_raw("x", datatype, array.shape, to_raw(array))

    assert back.dtype == numpy_dtype(datatype)
    np.testing.assert_array_equal(back, array)


@given(arrays(np.float32, array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_raw_floats_come_back_bit_for_bit(array: Any) -> None:
    back = from_raw("x", "FP32", array.shape, to_raw(array))

    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20)))
def test_raw_texts_come_back_whole(texts: Any) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts

    assert from_raw("x", BYTES, [len(texts)], to_raw(array)).tolist() == texts


@given(st.sampled_from(DATATYPES), st.lists(st.integers(-2, 2**62), max_size=4), st.binary())
def test_no_shape_and_bytes_do_worse_than_being_refused(
    datatype: Any, shape: Any, blob: Any
) -> None:
    try:
        array = from_raw("x", datatype, shape, blob)
    except InvalidTensor:
        return
    assert list(array.shape) == shape


def test_decoding_raw_numbers_copies_nothing_and_is_read_only() -> None:
    blob = np.arange(4, dtype=np.float32).tobytes()

    array = from_raw("x", "FP32", [4], blob)

    assert np.shares_memory(array, np.frombuffer(blob, np.float32))
    assert not array.flags.writeable


def test_an_array_that_isnt_contiguous_travels_row_by_row() -> None:
    assert to_raw(np.array([[1, 2], [3, 4]], np.uint8).T) == b"\x01\x03\x02\x04"


def test_numpy_text_travels_as_utf8() -> None:
    assert to_raw(np.array(["ß"])) == b"\x02\0\0\0\xc3\x9f"


def test_an_object_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="a BYTES element is a int"):
        to_raw(np.array([1], object))


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_raw_bytes_that_dont_fill_the_shape_are_refused(size: Any) -> None:
    with pytest.raises(InvalidTensor, match=rf"'x' FP32 \[2\] takes 8 raw bytes, got {size}"):
        from_raw("x", "FP32", [2], bytes(size))


def test_a_raw_boolean_is_zero_or_one() -> None:
    with pytest.raises(InvalidTensor, match="a byte other than 0 and 1"):
        from_raw("x", "BOOL", [2], b"\x01\x02")


@pytest.mark.parametrize(
    ("elements", "blob", "why"),
    [
        (1, b"", "1 elements take 4 raw bytes or more, got 0"),
        (2**40, b"\0" * 8, "got 8"),
        (1, b"\x05\0\0\0abc", "element 0 takes 5 bytes, 3 are left"),
        (1, b"\xff\xff\xff\xff", "element 0 takes 4294967295 bytes, 0 are left"),
        (2, b"\x02\0\0\0ab\0\0", "the length of element 1 is cut off"),
        (1, b"\0\0\0\0\0", "1 raw bytes follow the last element"),
        (0, b"\0", "1 raw bytes follow the last element"),
    ],
)
def test_malformed_raw_texts_are_refused_with_the_place(elements: Any, blob: Any, why: Any) -> None:
    with pytest.raises(InvalidTensor, match=why):
        from_raw("x", BYTES, [elements], blob)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents_may_be_a_view_that_begins_anywhere(datatype: str) -> None:
    array = EXAMPLES[datatype]
    blob = to_raw(array)
    inside = memoryview(b"x" + blob + b"y")[1:-1]
    read = from_raw("x", datatype, array.shape, inside)
    np.testing.assert_array_equal(read, array)
    if datatype != BYTES:
        assert np.shares_memory(read, np.frombuffer(inside, np.uint8))
        assert not read.flags.writeable


def test_a_view_of_booleans_holds_noughts_and_ones_only() -> None:
    with pytest.raises(InvalidTensor, match="'x' BOOL has a byte other than 0 and 1"):
        from_raw("x", "BOOL", [3], memoryview(b"\0\1\2"))


# ---------------------------------------------------------------- typed


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_of_every_datatype_come_back_as_they_went(datatype: Any) -> None:
    array = EXAMPLES[datatype]

    back = from_typed("x", datatype, array.shape, to_typed(array))

    assert back.dtype == numpy_dtype(datatype)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("datatype", RAW_ONLY)
def test_half_precision_travels_raw_only(datatype: Any) -> None:
    with pytest.raises(InvalidTensor, match=f"{datatype} travels raw only"):
        to_typed(EXAMPLES[datatype])
    with pytest.raises(InvalidTensor, match=f"'x' {datatype} travels raw only"):
        from_typed("x", datatype, [1], pb.InferTensorContents(fp32_contents=[1]))


@pytest.mark.parametrize("datatype", TYPED)
def test_contents_in_another_datatypes_field_are_refused(datatype: Any) -> None:
    other = "FP64" if datatype == "FP32" else "FP32"

    with pytest.raises(InvalidTensor, match=f"'x' {datatype} belongs in "):
        from_typed("x", datatype, EXAMPLES[other].shape, to_typed(EXAMPLES[other]))


def test_contents_in_two_fields_are_refused() -> None:
    contents = pb.InferTensorContents(fp32_contents=[1], int_contents=[1])

    with pytest.raises(InvalidTensor, match="belongs in fp32_contents, got int_contents"):
        from_typed("x", "FP32", [1], contents)


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_count_of_typed_elements_that_doesnt_fill_the_shape_is_refused(values: Any) -> None:
    contents = pb.InferTensorContents(fp32_contents=values)

    with pytest.raises(InvalidTensor, match=rf"takes 2 elements, got {len(values)}"):
        from_typed("x", "FP32", [2, 1], contents)


@pytest.mark.parametrize(
    ("datatype", "contents", "worst"),
    [
        ("INT8", pb.InferTensorContents(int_contents=[1, 128]), 128),
        ("INT8", pb.InferTensorContents(int_contents=[-129]), -129),
        ("INT16", pb.InferTensorContents(int_contents=[2**15]), 2**15),
        ("UINT8", pb.InferTensorContents(uint_contents=[256]), 256),
        ("UINT16", pb.InferTensorContents(uint_contents=[2**16]), 2**16),
    ],
)
def test_a_value_outside_its_datatypes_range_is_refused_rather_than_wrapped(
    datatype: Any, contents: Any, worst: Any
) -> None:
    count = len(contents.int_contents) + len(contents.uint_contents)

    with pytest.raises(InvalidTensor, match=f"{datatype}: value {worst} is out of range"):
        from_typed("x", datatype, [count], contents)


def test_a_typed_array_is_its_own_and_may_be_written() -> None:
    assert from_typed("x", "FP32", [1], pb.InferTensorContents(fp32_contents=[1])).flags.writeable


# ---------------------------------------------------------------- messages


def tensors() -> Any:
    return [Tensor(name.lower(), name, array) for name, array in EXAMPLES.items()]


def test_a_request_with_every_datatype_is_read_back_in_order() -> None:
    request = pb.ModelInferRequest()

    encode_inputs(request, tensors())

    back = decode_inputs(pb.ModelInferRequest.FromString(request.SerializeToString()))
    assert [(each.name, each.datatype) for each in back] == [
        (each.name, each.datatype) for each in tensors()
    ]
    for each in back:
        np.testing.assert_array_equal(each.array, EXAMPLES[each.datatype])


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_is_read_back_whether_raw_or_typed(raw: Any) -> None:
    response = pb.ModelInferResponse()
    sent = [each for each in tensors() if raw or each.datatype not in RAW_ONLY]

    encode_outputs(response, sent, raw=raw)

    assert len(response.raw_output_contents) == (len(sent) if raw else 0)
    for each in decode_outputs(response):
        np.testing.assert_array_equal(each.array, EXAMPLES[each.datatype])


def test_an_answer_that_cant_travel_typed_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="BF16 travels raw only"):
        encode_outputs(pb.ModelInferResponse(), [Tensor("x", "BF16", EXAMPLES["BF16"])], raw=False)


def test_raw_and_typed_contents_in_one_request_are_refused() -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"\0", b"\0"])
    request.inputs.add(name="a", datatype="INT8", shape=[1])
    request.inputs.add(name="b", datatype="INT8", shape=[1]).contents.int_contents.append(0)

    with pytest.raises(InvalidTensor, match="input 'b' has typed contents beside raw contents"):
        decode_inputs(request)


def test_contents_that_are_set_and_hold_nothing_are_none() -> None:
    response = pb.ModelInferResponse(raw_output_contents=[b"\7"])
    response.outputs.add(name="a", datatype="INT8", shape=[1]).contents.SetInParent()

    (output,) = decode_outputs(response)

    assert output.array.tolist() == [7]


@pytest.mark.parametrize("blobs", [1, 3])
def test_raw_contents_that_arent_as_many_as_the_tensors_are_refused(blobs: Any) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"\0"] * blobs)
    for name in "ab":
        request.inputs.add(name=name, datatype="INT8", shape=[1])

    with pytest.raises(InvalidTensor, match=f"2 inputs, but {blobs} raw contents"):
        decode_inputs(request)


def test_an_output_that_is_wrong_is_named() -> None:
    response = pb.ModelInferResponse(raw_output_contents=[b""])
    response.outputs.add(name="logits", datatype="FP32", shape=[1])

    with pytest.raises(InvalidTensor, match="'logits' FP32"):
        decode_outputs(response)


def test_messages_without_tensors_have_none() -> None:
    assert decode_inputs(pb.ModelInferRequest()) == []
    assert decode_outputs(pb.ModelInferResponse()) == []

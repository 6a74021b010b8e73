import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import DATATYPES, Array, Tensor, encode_outputs, numpy_dtype
from coalmine_server.signature import CheckedRequest, Signature, TensorSpec
from coalmine_server.wire.answers import AnswerWriter


def signature(*datatypes: str) -> Signature:
    outputs = tuple(
        TensorSpec(f"y{number}", datatype, (-1, -1)) for number, datatype in enumerate(datatypes)
    )
    return Signature("digits", 12, 32, (), outputs)


def request(*outputs: int, raw: bool = True, request_id: str = "") -> CheckedRequest:
    return CheckedRequest((), 1, (), outputs, raw, id=request_id)


def through_protobuf(declared: Signature, asked: CheckedRequest, arrays: list[Array]) -> Any:
    """Return the same answer, made by protobuf alone."""
    response = pb.ModelInferResponse(
        model_name=declared.model, model_version=str(declared.version), id=asked.id
    )
    specs = declared.outputs
    tensors = [Tensor(specs[i].name, specs[i].datatype, arrays[i]) for i in asked.outputs]
    encode_outputs(response, tensors, raw=asked.raw)
    return response


def check_same(declared: Signature, asked: CheckedRequest, arrays: list[Array]) -> None:
    written = AnswerWriter(declared).write(asked, arrays)
    assert pb.ModelInferResponse.FromString(written) == through_protobuf(declared, asked, arrays)


def example(datatype: str, *shape: int) -> Array:
    if datatype == "BYTES":
        array = np.empty(shape, dtype=object)
        array[...] = b"word"
        return array
    return np.ones(shape).astype(numpy_dtype(datatype))


RAW_ONLY = {"FP16", "BF16"}
FORMS = [(each, raw) for each in DATATYPES for raw in (True, False) if raw or each not in RAW_ONLY]


@pytest.mark.parametrize(("datatype", "raw"), FORMS)
def test_every_datatype_is_written_as_protobuf_would(datatype: str, raw: bool) -> None:
    for shape in [(1, 3), (0, 3), (100, 300)]:
        check_same(signature(datatype), request(0, raw=raw), [example(datatype, *shape)])


@given(
    st.lists(st.integers(0, 2), min_size=0, max_size=3, unique=True),
    st.text(max_size=300),
    st.integers(0, 3_000),
    st.booleans(),
)
def test_any_answer_is_written_as_protobuf_would(
    outputs: list[int], request_id: str, width: int, raw: bool
) -> None:
    arrays = [
        example("FP32", 2, width),
        example("INT64", 2, 1),
        example("BYTES", 2, min(width, 3)),
    ]
    asked = request(*outputs, raw=raw, request_id=request_id)
    check_same(signature("FP32", "INT64", "BYTES"), asked, arrays)


def test_outputs_come_in_the_order_in_which_they_were_asked_for() -> None:
    declared, arrays = signature("FP32", "INT64"), [example("FP32", 1, 1), example("INT64", 1, 1)]
    written = pb.ModelInferResponse.FromString(AnswerWriter(declared).write(request(1, 0), arrays))
    assert [each.name for each in written.outputs] == ["y1", "y0"]
    assert [len(each) for each in written.raw_output_contents] == [8, 4]


@pytest.mark.parametrize("size", [10, 30_000])
def test_elements_that_lie_apart_are_written_in_their_order(size: int) -> None:
    array = np.arange(size * 4, dtype="f4").reshape(4, size)[:, ::2]
    assert not array.flags.c_contiguous
    check_same(signature("FP32"), request(0), [array])


@pytest.mark.parametrize("array", [np.ones((2, 2), ">f4"), np.ones((2, 3), ml_dtypes.bfloat16)])
def test_elements_are_written_little_endian(array: Array) -> None:
    check_same(signature("FP32" if array.dtype.kind == "f" else "BF16"), request(0), [array])


def test_many_shapes_do_not_mix_and_are_not_all_remembered() -> None:
    declared = signature("FP32")
    answers = AnswerWriter(declared)
    for rows in [*range(1500), 3, 1499]:
        array = np.zeros((rows, 1), "f4")
        written = pb.ModelInferResponse.FromString(answers.write(request(0), [array]))
        assert list(written.outputs[0].shape) == [rows, 1]
    assert len(answers._described) <= 1024


def test_a_large_output_is_copied_once_into_its_answer() -> None:
    array = np.zeros((1, 150_528), "f4")
    answers = AnswerWriter(signature("FP32"))
    answers.write(request(0), [array])
    tracemalloc.start()
    written = answers.write(request(0), [array])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.nbytes < len(written) <= peak < array.nbytes * 1.02

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import CoalmineError, InvalidRequest, ModelFailed, NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs, to_typed
from coalmine_server.signature import Signature, TensorSpec, check_outputs, check_request

DIGITS = Signature(
    "digits",
    2,
    32,
    (TensorSpec("pixels", "FP32", (-1, 64)),),
    (TensorSpec("logits", "FP32", (-1, 10)), TensorSpec("best", "INT64", (-1,))),
)
PAIR = Signature(
    "pair",
    1,
    4,
    (TensorSpec("a", "INT64", (-1, -1)), TensorSpec("b", "FP32", (-1, 2))),
    (TensorSpec("c", "FP32", (-1,)),),
)
UNBATCHED = Signature(
    "flat", 1, 0, (TensorSpec("x", "FP32", (2, 3)),), (TensorSpec("y", "FP32", ()),)
)


def raw(*tensors: Tensor, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(**fields)
    encode_inputs(request, tensors)
    return request


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    datatype = {"f4": "FP32", "f8": "FP64", "i8": "INT64"}[dtype]
    return Tensor(name, datatype, np.zeros(shape, dtype=dtype))


def pixels(*shape: int, dtype: str = "f4") -> Tensor:
    return tensor("pixels", dtype, *shape)


def test_a_raw_request_comes_back_as_arrays_without_a_copy() -> None:
    checked = check_request(DIGITS, raw(pixels(3, 64)))
    assert checked.rows == 3
    assert checked.raw
    assert checked.outputs == (0, 1)
    assert checked.shape_key == ((64,),)
    assert not checked.arrays[0].flags.owndata, "a view of the message's bytes"


def test_a_typed_request_comes_back_as_arrays() -> None:
    array = np.arange(64, dtype="f4").reshape(1, 64)
    request = pb.ModelInferRequest()
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64], contents=to_typed(array))
    checked = check_request(DIGITS, request)
    assert not checked.raw
    np.testing.assert_array_equal(checked.arrays[0], array)


def test_inputs_come_back_in_the_declared_order() -> None:
    checked = check_request(PAIR, raw(tensor("b", "f4", 2, 2), tensor("a", "i8", 2, 5)))
    assert [array.shape for array in checked.arrays] == [(2, 5), (2, 2)]


def test_requests_share_a_batch_only_where_the_rest_of_their_shapes_is_equal() -> None:
    def key(rows: int, width: int) -> object:
        request = raw(tensor("a", "i8", rows, width), tensor("b", "f4", rows, 2))
        return check_request(PAIR, request).shape_key

    assert key(1, 5) == key(3, 5)
    assert key(1, 5) != key(1, 6)


def test_without_a_batch_dimension_a_request_is_one_row() -> None:
    checked = check_request(UNBATCHED, raw(tensor("x", "f4", 2, 3)))
    assert (checked.rows, checked.shape_key) == (1, ((2, 3),))


def test_outputs_come_back_as_they_were_asked_for() -> None:
    assert check_request(DIGITS, raw(pixels(1, 64), outputs=[{"name": "best"}])).outputs == (1,)
    asked = [{"name": "best"}, {"name": "logits"}, {"name": "best"}]
    assert check_request(DIGITS, raw(pixels(1, 64), outputs=asked)).outputs == (1, 0)


REFUSED = {
    "datatype and shape": (
        raw(pixels(1, 63, dtype="f8")),
        "model 'digits' version 2: input 'pixels' expects FP32 [-1, 64], got FP64 [1, 63]",
    ),
    "rank": (raw(pixels(64)), "input 'pixels' expects FP32 [-1, 64], got FP32 [64]"),
    "unknown": (
        raw(tensor("image", "f4", 1, 64)),
        "version 2: input 'image' is unknown, expected 'pixels'",
    ),
    "duplicate": (raw(pixels(1, 64), pixels(1, 64)), "input 'pixels' came twice"),
    "missing": (raw(), "input 'pixels' is missing"),
    "no rows": (raw(pixels(0, 64)), "expects 1 to 32 rows, got 0"),
    "too many rows": (raw(pixels(33, 64)), "expects 1 to 32 rows, got 33"),
    "unknown output": (
        raw(pixels(1, 64), outputs=[{"name": "scores"}]),
        "output 'scores' is unknown, expected 'logits', 'best'",
    ),
    "time-out's type": (
        raw(pixels(1, 64), parameters={"timeout": {"string_param": "1s"}}),
        "parameter 'timeout' expects int64_param, got string_param",
    ),
    "time-out below zero": (
        raw(pixels(1, 64), parameters={"timeout": {"int64_param": -1}}),
        "parameter 'timeout' expects 0 or more, got -1",
    ),
    "priority's type": (
        raw(pixels(1, 64), parameters={"priority": {"bool_param": True}}),
        "parameter 'priority' expects uint64_param, got bool_param",
    ),
}


@pytest.mark.parametrize(("request_", "text"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_does_not_fit_is_refused_and_told_why(
    request_: pb.ModelInferRequest, text: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_request(DIGITS, request_)
    assert text in str(refusal.value)
    assert str(refusal.value).startswith("model 'digits' version 2: ")


def test_inputs_with_different_rows_are_refused() -> None:
    request = raw(tensor("a", "i8", 2, 5), tensor("b", "f4", 3, 2))
    with pytest.raises(InvalidRequest, match="input 'b' has 3 rows, but 'a' has 2"):
        check_request(PAIR, request)


def test_raw_bytes_of_the_wrong_size_are_refused() -> None:
    request = raw(pixels(1, 64))
    request.raw_input_contents[0] = b"short"
    with pytest.raises(InvalidRequest, match=r"input 'pixels' FP32 .* takes 256 raw bytes, got 5"):
        check_request(DIGITS, request)


def test_raw_and_typed_contents_do_not_mix() -> None:
    request = raw(pixels(1, 64))
    request.inputs[0].contents.fp32_contents.append(1.0)
    with pytest.raises(InvalidRequest, match="'pixels' has typed contents beside raw"):
        check_request(DIGITS, request)


@pytest.mark.parametrize("size", [-1, 2**62])
def test_an_absurd_size_is_refused_before_anything_is_allocated(size: int) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"", b""])
    request.inputs.add(name="a", datatype="INT64", shape=[1, size])
    request.inputs.add(name="b", datatype="FP32", shape=[1, 2])
    with pytest.raises(InvalidRequest):
        check_request(PAIR, request)


def test_absurd_sizes_that_hold_no_element_are_refused() -> None:
    wide = Signature("w", 1, 0, (TensorSpec("x", "FP32", (-1, -1, -1)),), ())
    request = pb.ModelInferRequest(raw_input_contents=[b""])
    request.inputs.add(name="x", datatype="FP32", shape=[0, 2**62, 2**62])
    with pytest.raises(InvalidRequest):
        check_request(wide, request)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: r.parameters["sequence_id"].MergeFrom(_one()), "sequence_id"),
        (
            lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(_one()),
            "shared_memory_region",
        ),
        (
            lambda r: r.outputs.add(name="best").parameters["classification"].MergeFrom(_one()),
            "classification",
        ),
    ],
)
def test_a_parameter_that_would_change_the_answer_is_refused_and_not_ignored(
    change: Callable[[pb.ModelInferRequest], None], name: str
) -> None:
    request = raw(pixels(1, 64))
    change(request)
    with pytest.raises(NotOffered, match=f"parameter '{name}' is not offered"):
        check_request(DIGITS, request)


def _one() -> pb.InferParameter:
    return pb.InferParameter(int64_param=1)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [({"int64_param": 1500}, 1_500_000), ({"int64_param": 0}, None), (None, None)],
)
def test_the_time_out_is_microseconds_and_nought_is_none(
    parameter: dict[str, int] | None, expected: int | None
) -> None:
    parameters: dict[str, Any] = {"priority": {"uint64_param": 1}, "other": {"bool_param": True}}
    if parameter:
        parameters["timeout"] = parameter
    checked = check_request(DIGITS, raw(pixels(1, 64), parameters=parameters))
    assert checked.timeout_ns == expected


@given(
    st.lists(st.integers(-2, 70), max_size=3),
    st.sampled_from(["FP32", "FP64", "BYTES", "FP99", ""]),
    st.lists(st.binary(max_size=300), max_size=2),
)
def test_any_request_is_read_or_refused_and_never_breaks(
    shape: list[int], datatype: str, blobs: list[bytes]
) -> None:
    request = pb.ModelInferRequest(raw_input_contents=blobs)
    request.inputs.add(name="pixels", datatype=datatype, shape=shape)
    try:
        checked = check_request(DIGITS, request)
    except CoalmineError as error:
        assert str(error).startswith("model 'digits' version 2: ")  # noqa: PT017 - either is right
    else:
        assert checked.arrays[0].shape == (checked.rows, 64)


# ---------------------------------------------------------------- outputs

GOOD = [np.zeros((2, 10), "f4"), np.zeros(2, "i8")]


def test_outputs_as_declared_pass() -> None:
    check_outputs(DIGITS, GOOD, 2)
    check_outputs(UNBATCHED, [np.zeros((), "f4")], 1)


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (GOOD[:1], "expected 2 outputs, the model gave 1"),
        (
            [np.zeros((2, 9), "f4"), GOOD[1]],
            r"'logits' is declared FP32 \[2, 10\], .* FP32 \[2, 9\]",
        ),
        (
            [GOOD[0], np.zeros(2, "i4")],
            r"'best' is declared INT64 \[2\], the model gave INT32 \[2\]",
        ),
        ([np.zeros((1, 10), "f4"), GOOD[1]], r"'logits' is declared FP32 \[2, 10\]"),
        ([np.zeros((), "f4"), GOOD[1]], r"the model gave FP32 \[\]"),
        ([np.zeros((2, 10), "c8"), GOOD[1]], r"'logits' .*complex64"),
    ],
)
def test_outputs_that_were_not_declared_are_the_models_failure(
    outputs: list[np.ndarray[Any, Any]], text: str
) -> None:
    with pytest.raises(ModelFailed, match=text):
        check_outputs(DIGITS, outputs, 2)

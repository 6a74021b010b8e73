import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import CoalmineError, InvalidRequest, ModelFailed, NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, Tensor, encode_inputs, to_typed
from coalmine_server.signature import (
    CheckedRequest,
    Signature,
    TensorSpec,
    check_outputs,
)
from coalmine_server.wire.inputs import check_request
from coalmine_server.wire.requests import InferRequest

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


def check(signature: Signature, request: pb.ModelInferRequest) -> CheckedRequest:
    """Return what check_request does with a message that protobuf has read."""
    given = InferRequest(request, request.raw_input_contents, request.ByteSize())
    return check_request(signature, given)


def present(checked: CheckedRequest) -> list[Array]:
    return [each for each in checked.arrays if each is not None]


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
    checked = check(DIGITS, raw(pixels(3, 64)))
    assert checked.rows == 3
    assert checked.raw
    assert checked.outputs == (0, 1)
    assert checked.shape_key == ((64,),)
    assert checked.nbytes > 3 * 64 * 4
    (array,) = present(checked)
    assert not array.flags.owndata, "a view of the message's bytes"


def test_a_typed_request_comes_back_as_arrays() -> None:
    array = np.arange(64, dtype="f4").reshape(1, 64)
    request = pb.ModelInferRequest()
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64], contents=to_typed(array))
    checked = check(DIGITS, request)
    assert not checked.raw
    np.testing.assert_array_equal(present(checked)[0], array)


def test_inputs_come_back_in_the_declared_order() -> None:
    checked = check(PAIR, raw(tensor("b", "f4", 2, 2), tensor("a", "i8", 2, 5)))
    assert [array.shape for array in present(checked)] == [(2, 5), (2, 2)]


def test_requests_share_a_batch_only_where_the_rest_of_their_shapes_is_equal() -> None:
    def key(rows: int, width: int) -> object:
        request = raw(tensor("a", "i8", rows, width), tensor("b", "f4", rows, 2))
        return check(PAIR, request).shape_key

    assert key(1, 5) == key(3, 5)
    assert key(1, 5) != key(1, 6)


def test_without_a_batch_dimension_a_request_is_one_row() -> None:
    checked = check(UNBATCHED, raw(tensor("x", "f4", 2, 3)))
    assert (checked.rows, checked.shape_key) == (1, ((2, 3),))


def test_outputs_come_back_as_they_were_asked_for() -> None:
    assert check(DIGITS, raw(pixels(1, 64), outputs=[{"name": "best"}])).outputs == (1,)
    asked = [{"name": "best"}, {"name": "logits"}, {"name": "best"}]
    assert check(DIGITS, raw(pixels(1, 64), outputs=asked)).outputs == (1, 0)


def _described(name: str, shape: list[int]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest()
    request.inputs.add(name=name, datatype="FP32", shape=shape)
    return request


REFUSED = {
    "datatype and shape": (
        raw(pixels(1, 63, dtype="f8")),
        "model 'digits' version 2: input 'pixels' expects FP32 [-1, 64], got FP64 [1, 63]",
    ),
    "rank": (raw(pixels(64)), "input 'pixels' expects FP32 [-1, 64], got FP32 [64]"),
    "more dimensions than there are": (
        _described("pixels", [1] * 50_000),
        "input 'pixels' expects FP32 [-1, 64], got FP32 of 50000 dimensions",
    ),
    "unknown": (
        raw(tensor("image", "f4", 1, 64)),
        "version 2: input 'image' is unknown, expected 'pixels'",
    ),
    "too many outputs": (
        raw(pixels(1, 64), outputs=[{"name": "best"}] * 9),
        "expects at most 8 requested outputs, got 9",
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
        check(DIGITS, request_)
    assert text in str(refusal.value)
    assert str(refusal.value).startswith("model 'digits' version 2: ")


def test_inputs_with_different_rows_are_refused() -> None:
    request = raw(tensor("a", "i8", 2, 5), tensor("b", "f4", 3, 2))
    with pytest.raises(InvalidRequest, match="input 'b' has 3 rows, but 'a' has 2"):
        check(PAIR, request)


def test_raw_bytes_of_the_wrong_size_are_refused() -> None:
    request = raw(pixels(1, 64))
    request.raw_input_contents[0] = b"short"
    with pytest.raises(InvalidRequest, match=r"input 'pixels' FP32 .* takes 256 raw bytes, got 5"):
        check(DIGITS, request)


def test_raw_and_typed_contents_do_not_mix() -> None:
    request = raw(pixels(1, 64))
    request.inputs[0].contents.fp32_contents.append(1.0)
    with pytest.raises(InvalidRequest, match="'pixels' has typed contents beside raw"):
        check(DIGITS, request)


@pytest.mark.parametrize("size", [-1, 2**62])
def test_an_absurd_size_is_refused_before_anything_is_allocated(size: int) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[b"", b""])
    request.inputs.add(name="a", datatype="INT64", shape=[1, size])
    request.inputs.add(name="b", datatype="FP32", shape=[1, 2])
    with pytest.raises(InvalidRequest):
        check(PAIR, request)


def test_absurd_sizes_that_hold_no_element_are_refused() -> None:
    wide = Signature("w", 1, 0, (TensorSpec("x", "FP32", (-1, -1, -1)),), ())
    request = pb.ModelInferRequest(raw_input_contents=[b""])
    request.inputs.add(name="x", datatype="FP32", shape=[0, 2**62, 2**62])
    with pytest.raises(InvalidRequest):
        check(wide, request)


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
        check(DIGITS, request)


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
    checked = check(DIGITS, raw(pixels(1, 64), parameters=parameters))
    assert (checked.timeout_ns, checked.priority) == (expected, 1)


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
        checked = check(DIGITS, request)
    except CoalmineError as error:
        assert str(error).startswith("model 'digits' version 2: ")  # noqa: PT017 - either is right
    else:
        assert present(checked)[0].shape == (checked.rows, 64)


@pytest.mark.parametrize(
    "shape",
    [
        [1] * 33,
        [2**62, 2**62],
        [2**31, 2**31, 2**2],
        [0, 2**62, 2**62],
        [-1, -1],
        [-(2**63), 1],
        [2**63 - 1, 64],
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_shape_bomb_is_refused_before_anything_is_allocated(
    shape: list[int], datatype: str
) -> None:
    wild = Signature("w", 1, 0, (TensorSpec("x", datatype, (-1,) * len(shape)),), ())
    for blobs in ([], [b""], [bytes(8)]):
        request = pb.ModelInferRequest(raw_input_contents=blobs)
        request.inputs.add(name="x", datatype=datatype, shape=shape)
        tracemalloc.start()
        with pytest.raises(InvalidRequest):
            check(wild, request)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000


def test_a_shape_of_very_many_sizes_is_not_remembered() -> None:
    shape = [1] * 100_000
    tracemalloc.start()
    for more in range(10):
        with pytest.raises(InvalidRequest):
            check(DIGITS, _described("pixels", [*shape, more]))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1_000_000


@pytest.mark.parametrize("count", [0, 1, 63, 65, 10_000])
def test_typed_contents_that_are_not_as_many_as_the_shape_says_are_refused(count: int) -> None:
    request = pb.ModelInferRequest()
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    request.inputs[0].contents.fp32_contents.extend([0.0] * count)
    with pytest.raises(InvalidRequest, match=f"takes 64 elements, got {count}"):
        check(DIGITS, request)


@pytest.mark.parametrize("blobs", [1, 3])
def test_raw_contents_that_are_not_as_many_as_the_inputs_are_refused(blobs: int) -> None:
    request = raw(tensor("a", "i8", 1, 2), tensor("b", "f4", 1, 2))
    contents = [bytes(16)] * blobs
    request.ClearField("raw_input_contents")
    request.raw_input_contents.extend(contents)
    with pytest.raises(
        InvalidRequest, match=f"^model 'pair' version 1: 2 inputs, but {blobs} raw contents$"
    ):
        check(PAIR, request)


# ---------------------------------------------------------------- optional inputs

OPTIONAL = Signature(
    "opt",
    1,
    4,
    (TensorSpec("mask", "FP32", (-1, 2), optional=True), TensorSpec("x", "FP32", (-1, -1))),
    (TensorSpec("y", "FP32", (-1,)),),
)


def test_an_optional_input_may_be_absent_and_its_place_is_kept() -> None:
    checked = check(OPTIONAL, raw(tensor("x", "f4", 2, 3)))
    absent, given = checked.arrays
    assert absent is None
    assert given is not None
    assert given.shape == (2, 3)
    assert (checked.rows, checked.shape_key) == (2, (None, (3,)))


def test_requests_with_other_inputs_never_share_a_batch() -> None:
    without = check(OPTIONAL, raw(tensor("x", "f4", 2, 2)))
    with_mask = check(OPTIONAL, raw(tensor("x", "f4", 2, 2), tensor("mask", "f4", 2, 2)))
    assert without.shape_key != with_mask.shape_key


def test_an_input_that_is_not_optional_has_to_come() -> None:
    with pytest.raises(InvalidRequest, match="input 'x' is missing"):
        check(OPTIONAL, raw(tensor("mask", "f4", 2, 2)))


def test_an_optional_input_has_as_many_rows_as_the_others() -> None:
    with pytest.raises(InvalidRequest, match="input 'x' has 2 rows, but 'mask' has 1"):
        check(OPTIONAL, raw(tensor("x", "f4", 2, 2), tensor("mask", "f4", 1, 2)))


# ---------------------------------------------------------------- strings

WORDS = Signature(
    "words",
    1,
    4,
    (TensorSpec("words", "BYTES", (-1, 1)),),
    (TensorSpec("tags", "BYTES", (-1, 1)),),
)


def words(*elements: bytes) -> Tensor:
    array = np.empty((len(elements), 1), dtype=object)
    array[:, 0] = elements
    return Tensor("words", "BYTES", array)


@pytest.mark.parametrize("is_raw", [True, False])
def test_bytes_come_back_as_text(is_raw: bool) -> None:
    sent = words(b"one", "zwölf".encode(), b"")
    request = raw(sent)
    if not is_raw:
        request.ClearField("raw_input_contents")
        request.inputs[0].contents.CopyFrom(to_typed(sent.array))
    (array,) = present(check(WORDS, request))
    assert array.tolist() == [["one"], ["zwölf"], [""]]


def test_bytes_that_are_no_text_are_refused_by_tensor_and_element() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check(WORDS, raw(words(b"fine", b"\xff\xfe")))
    assert str(refusal.value) == (
        "model 'words' version 1: input 'words' BYTES: element 1 is not UTF-8"
    )


# ---------------------------------------------------------------- raw or typed


@pytest.mark.parametrize("given", [True, False])
def test_a_request_may_ask_for_the_other_form_of_answer(given: bool) -> None:
    parameters: dict[str, Any] = {"binary_data_output": {"bool_param": given}}
    assert check(DIGITS, raw(pixels(1, 64), parameters=parameters)).raw is given


def test_an_answer_that_can_not_travel_typed_is_refused_before_the_model_runs() -> None:
    half = Signature(
        "half",
        1,
        4,
        (TensorSpec("x", "FP32", (-1, 1)),),
        (TensorSpec("y", "FP16", (-1,)), TensorSpec("z", "FP32", (-1,))),
    )
    request = pb.ModelInferRequest()
    array = np.zeros((1, 1), "f4")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1], contents=to_typed(array))
    with pytest.raises(InvalidRequest, match="output 'y' FP16 travels raw only"):
        check(half, request)
    request.outputs.add(name="z")
    assert check(half, request).outputs == (1,)


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

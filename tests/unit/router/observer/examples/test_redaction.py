"""What is left of a comparison, and of a request, once it may not hold values."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Tensor, decode_inputs, to_typed
from coalmine_router.observer.comparison.result import (
    KINDS,
    Comparison,
    Difference,
    Element,
    Kind,
    OutputResult,
)
from coalmine_router.observer.examples.redaction import (
    CAPTURES,
    may_stay,
    redacted_comparison,
    request_without_inputs,
)
from tests.doubles.oip_backend import request_body


def comparison(kind: Kind, expected: str, actual: str) -> Comparison:
    worst = (Element((0, 3), expected, actual), Element((1, 3), expected, actual))
    difference = Difference("y", kind, worst, max_abs_diff=0.5, differing=2, elements=8, rows=4)
    results = (
        OutputResult("y", "mismatch", 4, 2, difference=difference),
        OutputResult("z", "match"),
    )
    return Comparison("mismatch", kind, (difference,), 1, results, 4, 2, 0.5)


def test_with_full_nothing_is_taken_away() -> None:
    found = comparison("value", "1.0", "2.0")

    assert redacted_comparison(found, "full") is found


@pytest.mark.parametrize("capture", ["none", "shapes"])
@pytest.mark.parametrize("kind", KINDS)
def test_below_full_no_value_is_left_anywhere(kind: Any, capture: Any) -> None:
    found = redacted_comparison(comparison(kind, "OK: a-secret", "INTERNAL: a-secret"), capture)

    is_shapes = capture == "shapes" and kind in {"missing", "extra", "datatype", "shape"}
    assert ("a-secret" in repr(found)) is is_shapes


@pytest.mark.parametrize("capture", ["none", "shapes"])
def test_what_differs_and_how_far_is_left(capture: Any) -> None:
    found = redacted_comparison(comparison("value", "1.0", "2.0"), capture)

    (difference,) = found.differences
    assert found.outputs[0].difference == difference
    assert (found.outcome, found.kind, found.rows, found.rows_mismatch) == (
        "mismatch",
        "value",
        4,
        2,
    )
    assert (difference.output, difference.max_abs_diff, difference.differing) == ("y", 0.5, 2)
    assert [each.index for each in difference.worst] == [(0, 3), (1, 3)]
    assert {(each.expected, each.actual) for each in difference.worst} == {("", "")}


@pytest.mark.parametrize(
    ("capture", "told"), [("shapes", ("FP32 [1]", "FP64 [1]")), ("none", ("", ""))]
)
def test_datatypes_and_shapes_are_left_with_shapes_only(
    capture: Any, told: tuple[str, str]
) -> None:
    (difference,) = redacted_comparison(
        comparison("datatype", "FP32 [1]", "FP64 [1]"), capture
    ).differences

    assert (difference.worst[0].expected, difference.worst[0].actual) == told


@pytest.mark.parametrize("capture", ["none", "shapes"])
def test_of_a_status_the_code_is_left(capture: Any) -> None:
    (difference,) = redacted_comparison(
        comparison("status", "OK", "INTERNAL: x=1"), capture
    ).differences

    assert (difference.worst[0].expected, difference.worst[0].actual) == ("OK", "INTERNAL")


# ---------------------------------------------------------------- requests

A, B = np.arange(3, dtype=np.float32), np.array([b"a-secret"], object)


def names(body: bytes) -> list[str]:
    return [each.name for each in oip.ModelInferRequest.FromString(body).inputs]


def test_an_inputs_raw_contents_go_with_it_and_the_others_keep_theirs() -> None:
    body, dropped = request_without_inputs(request_body("m", b=B, a=A), {"b"})

    (left,) = decode_inputs(oip.ModelInferRequest.FromString(body))
    assert dropped == ("b",)
    assert left.name == "a"
    np.testing.assert_array_equal(left.array, A)
    assert b"a-secret" not in body


def test_a_typed_inputs_contents_go_with_it() -> None:
    request = oip.ModelInferRequest(model_name="m")
    for tensor in (Tensor("a", "FP32", A), Tensor("b", "BYTES", B)):
        request.inputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape
        ).contents.CopyFrom(to_typed(tensor.array))

    body, dropped = request_without_inputs(request.SerializeToString(), {"b", "other"})

    assert (names(body), dropped) == (["a"], ("b",))
    assert b"a-secret" not in body


def test_a_request_without_such_inputs_is_left_as_it_is() -> None:
    body = request_body("m", a=A)

    assert request_without_inputs(body, {"b"}) == (body, ())
    assert request_without_inputs(b"\xff\xff", ()) == (b"\xff\xff", ())


def test_an_input_that_comes_twice_goes_twice() -> None:
    request = oip.ModelInferRequest.FromString(request_body("m", b=B, a=A))
    request.inputs.add(name="b")
    request.raw_input_contents.append(b"a-secret")

    body, dropped = request_without_inputs(request.SerializeToString(), {"b"})

    assert (names(body), dropped) == (["a"], ("b",))
    assert b"a-secret" not in body


@pytest.mark.parametrize("broken", ["truncated", "one blob too many"])
def test_where_it_cant_be_told_whose_bytes_are_whose_all_go(broken: str) -> None:
    request = oip.ModelInferRequest.FromString(request_body("m", a=A, b=B))
    request.raw_input_contents.append(b"more")
    body = request.SerializeToString()

    assert request_without_inputs(body[:-1] if broken == "truncated" else body, {"b"}) == (
        b"",
        ("b",),
    )


def test_a_field_that_nobody_knows_hides_nothing() -> None:
    unknown = bytes([0x9A, 0x06, 8]) + b"a-secret"  # field 99, of 8 bytes

    body, _ = request_without_inputs(request_body("m", a=A, b=B) + unknown, {"b"})

    assert b"a-secret" not in body


@given(st.lists(st.sampled_from("abc"), max_size=6), st.sets(st.sampled_from("abc")))
def test_exactly_the_named_inputs_go_and_the_rest_keep_order_and_bytes(
    inputs: list[str], dropped: set[str]
) -> None:
    request = oip.ModelInferRequest(model_name="m")
    for at, name in enumerate(inputs):
        request.inputs.add(name=name)
        request.raw_input_contents.append(bytes([at]))

    body, found = request_without_inputs(request.SerializeToString(), dropped)

    left = oip.ModelInferRequest.FromString(body)
    kept = [(name, bytes([at])) for at, name in enumerate(inputs) if name not in dropped]
    assert set(found) == dropped & set(inputs)
    assert (
        list(zip([each.name for each in left.inputs], left.raw_input_contents, strict=True)) == kept
    )


# ---------------------------------------------------------------- what was allowed when


@pytest.mark.parametrize("now", CAPTURES)
@pytest.mark.parametrize("then", CAPTURES)
def test_what_was_kept_under_a_laxer_capture_is_not_allowed(now: Any, then: Any) -> None:
    is_stricter = CAPTURES.index(then) <= CAPTURES.index(now)

    assert may_stay((now, frozenset()), (then, frozenset())) is is_stricter


@pytest.mark.parametrize(
    ("now", "then", "is_allowed"), [("a", "ab", True), ("ab", "a", False), ("", "", True)]
)
def test_a_full_record_is_allowed_where_as_many_inputs_were_dropped(
    now: str, then: str, is_allowed: bool
) -> None:
    assert may_stay(("full", frozenset(now)), ("full", frozenset(then))) is is_allowed
    assert may_stay(("full", frozenset(now)), ("shapes", frozenset(then)))

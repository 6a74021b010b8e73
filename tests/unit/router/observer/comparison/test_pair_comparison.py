"""A reference's answer against a candidate's."""

from typing import Any

import numpy as np
import pytest

from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Array
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.answer_arrays import OUTPUTS_MAX
from coalmine_router.observer.comparison.job import ComparisonJob, results_of
from coalmine_router.observer.comparison.result import (
    DIFFERENCES_MAX,
    ComparedAnswer,
    Comparison,
    Element,
)
from tests.doubles.oip_backend import response_body
from tests.doubles.reports import rules

CLOSE = rules()
LOGITS: Array = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)


def answer(**outputs: Any) -> ComparedAnswer:
    return ComparedAnswer(response_body(**outputs))


def compare(
    reference: ComparedAnswer, candidate: ComparedAnswer, chosen: CompareConfig
) -> Comparison:
    (found,) = results_of(ComparisonJob((reference, candidate), ((0, 1),), chosen)).comparisons
    return found


def raw(*outputs: tuple[str, str, list[int], bytes]) -> ComparedAnswer:
    """Return an answer of raw outputs, right or wrong: name, datatype, shape, bytes."""
    response = oip.ModelInferResponse(model_name="m")
    for name, datatype, shape, blob in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(blob)
    return ComparedAnswer(response.SerializeToString())


def results(found: Comparison) -> dict[str, str]:
    return {each.output: each.outcome for each in found.outputs}


def test_equal_answers_match_whatever_model_gave_them() -> None:
    candidate = ComparedAnswer(response_body("digits-next", version="2", logits=LOGITS))
    found = compare(answer(logits=LOGITS), candidate, CLOSE)
    assert (found.outcome, found.kind, found.differences) == ("match", "", ())
    assert results(found) == {"logits": "match"}


def test_typed_and_raw_answers_of_the_same_values_match() -> None:
    typed = oip.ModelInferResponse(
        outputs=[
            oip.ModelInferResponse.InferOutputTensor(
                name="logits",
                datatype="FP32",
                shape=[1, 3],
                contents=oip.InferTensorContents(fp32_contents=LOGITS.ravel().tolist()),
            )
        ]
    )
    found = compare(answer(logits=LOGITS), ComparedAnswer(typed.SerializeToString()), CLOSE)
    assert found.outcome == "match"


def test_a_difference_within_tolerance_matches_and_is_measured() -> None:
    found = compare(answer(y=np.array([1.0])), answer(y=np.array([1.0 + 1e-8])), CLOSE)
    assert found.outcome == "match"
    assert found.max_abs_diff == pytest.approx(1e-8)


def test_the_worst_element_is_named() -> None:
    candidate = LOGITS + np.array([[0, -0.2, 0.3]], dtype=np.float32)
    found = compare(answer(logits=LOGITS), answer(logits=candidate), CLOSE)
    (difference,) = found.differences
    assert (found.outcome, found.kind, found.outputs_differing) == ("mismatch", "value", 1)
    assert (difference.output, difference.differing, difference.elements) == ("logits", 2, 3)
    assert difference.worst[0] == Element((0, 2), "0.2", "0.5")
    assert found.max_abs_diff == difference.max_abs_diff == pytest.approx(0.3)


# ---------------------------------------------------------------- malformed

MALFORMED = {
    "not a message": ComparedAnswer(b"\xff\xff"),
    "raw size": raw(("y", "FP32", [1, 3], b"\0" * 11)),
    "unknown datatype": raw(("y", "FP8", [1], b"\0")),
    "negative size": raw(("y", "FP32", [-1], b"\0" * 4)),
    "sizes that overflow": raw(("y", "FP32", [0, 2**62, 2**62], b"")),
    "bytes cut off": raw(("y", "BYTES", [1], b"\x09\0\0\0ab")),
    "more outputs than are compared": raw(
        *((f"y{each}", "INT8", [1], b"\0") for each in range(OUTPUTS_MAX + 1))
    ),
    "ten thousand outputs": raw(*((f"y{each}", "INT8", [1], b"\0") for each in range(10_000))),
    "a name without end": raw(("y" * 10_000, "INT8", [1], b"\0")),
    "name twice": raw(("y", "INT8", [1], b"\0"), ("y", "INT8", [1], b"\0")),
    "blobs missing": ComparedAnswer(
        oip.ModelInferResponse(
            outputs=[oip.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[2])]
        ).SerializeToString()
    ),
}


@pytest.mark.parametrize("candidate", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_candidate_is_a_mismatch_that_says_what_is_wrong(
    candidate: ComparedAnswer,
) -> None:
    found = compare(answer(y=LOGITS), candidate, CLOSE)
    assert (found.outcome, found.kind, found.outputs) == ("mismatch", "malformed", ())
    assert 0 < len(found.differences[0].worst[0].actual) <= 200
    assert found.share == 1.0


@pytest.mark.parametrize("reference", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_reference_is_skipped(reference: ComparedAnswer) -> None:
    assert compare(reference, answer(y=LOGITS), CLOSE) == Comparison("skipped", "malformed")


# ---------------------------------------------------------------- names, datatypes, shapes


@pytest.mark.parametrize(
    ("candidate", "kind", "expected", "actual"),
    [
        ({}, "missing", "FP32 [1, 3]", "no such output"),
        ({"y": LOGITS, "z": np.array([[1]])}, "extra", "no such output", "INT64 [1, 1]"),
        ({"y": LOGITS.astype(np.float64)}, "datatype", "FP32", "FP64"),
        ({"y": LOGITS.ravel()}, "shape", "[1, 3]", "[3]"),
        ({"y": np.zeros((1, 4), np.float64)}, "datatype", "FP32", "FP64"),
        ({"y": np.full((1, 3), np.nan, np.float32)}, "nan", "0.1", "nan"),
        ({"y": LOGITS * 2}, "value", "0.7", "1.4"),
    ],
)
def test_an_outputs_difference_is_named_after_the_first_thing_that_differs(
    candidate: dict[str, Any], kind: str, expected: str, actual: str
) -> None:
    found = compare(answer(y=LOGITS), answer(**candidate), CLOSE)
    assert (found.outcome, found.kind) == ("mismatch", kind)
    assert (found.differences[0].worst[0].expected, found.differences[0].worst[0].actual) == (
        expected,
        actual,
    )


def test_each_output_is_judged_for_itself_and_the_gravest_names_the_comparison() -> None:
    reference = answer(a=LOGITS, b=LOGITS, c=LOGITS, d=LOGITS, e=LOGITS)
    candidate = answer(f=LOGITS, b=LOGITS, c=LOGITS * 2, d=LOGITS[0], e=LOGITS.astype(np.float16))
    found = compare(reference, candidate, CLOSE)
    assert results(found) == {
        **dict.fromkeys("acdef", "mismatch"),
        "b": "match",
    }
    assert [each.kind for each in found.differences] == [
        *("missing", "extra", "datatype", "shape", "value")
    ]
    assert found.kind == "missing"
    assert found.outputs_differing == 5


def test_the_order_of_outputs_does_not_matter() -> None:
    found = compare(answer(a=LOGITS, b=LOGITS * 2), answer(b=LOGITS * 2, a=LOGITS), CLOSE)
    assert found.outcome == "match"


# ---------------------------------------------------------------- rules


def test_each_output_has_its_own_rule() -> None:
    chosen = rules("exact", loose={"rule": "close", "atol": 1.0}, when={"rule": "ignore"})
    shifted = {"loose": LOGITS + np.float32(0.5), "strict": LOGITS, "when": LOGITS * 9}
    found = compare(answer(loose=LOGITS, strict=LOGITS, when=LOGITS), answer(**shifted), chosen)
    assert found.outcome == "match"
    assert results(found) == {"loose": "match", "strict": "match", "when": "ignored"}
    nudged = compare(answer(strict=LOGITS), answer(strict=np.nextafter(LOGITS, 2)), chosen)
    assert nudged.outcome == "mismatch"


@pytest.mark.parametrize("candidate", [answer(y=LOGITS), answer(y=LOGITS, when=LOGITS[0])])
def test_an_ignored_output_may_be_missing_or_extra(candidate: ComparedAnswer) -> None:
    chosen = rules(when={"rule": "ignore"})
    assert compare(answer(y=LOGITS, when=LOGITS), candidate, chosen).outcome == "match"
    assert compare(candidate, answer(y=LOGITS, when=LOGITS), chosen).outcome == "match"


def test_answers_without_outputs_are_skipped() -> None:
    found = compare(answer(), answer(), CLOSE)
    assert (found.outcome, found.kind, found.rows) == ("skipped", "nothing", 0)


def test_where_every_output_is_ignored_so_is_the_comparison() -> None:
    found = compare(answer(when=LOGITS), answer(when=LOGITS), rules(when={"rule": "ignore"}))
    assert (found.outcome, found.kind, found.rows) == ("ignored", "", 0)
    assert results(found) == {"when": "ignored"}


def test_a_rule_that_fits_no_output_leaves_nothing_compared() -> None:
    found = compare(answer(y=LOGITS), answer(y=LOGITS), rules("json"))
    assert (found.outcome, found.kind) == ("skipped", "rule")
    (result,) = found.outputs
    assert (result.outcome, result.reason, result.rule, result.rows) == (
        *("skipped", "rule", "json", 0),
    )


# ---------------------------------------------------------------- values at the edges


def test_nan_and_infinity_on_both_sides_match() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float16)
    assert compare(answer(y=odd), answer(y=odd), CLOSE).outcome == "match"


@pytest.mark.parametrize("shape", [(0, 10), (3, 0), (0,)])
def test_what_holds_no_value_is_skipped_and_does_not_match(shape: tuple[int, ...]) -> None:
    none = np.zeros(shape, np.float32)
    found = compare(answer(y=none), answer(y=none), CLOSE)
    assert (found.outcome, found.kind, found.rows) == ("skipped", "nothing", 0)
    assert found.outputs[0].reason == "nothing"
    beside = compare(answer(y=none, z=LOGITS), answer(y=none, z=LOGITS), CLOSE)
    assert beside.outcome == "match"
    assert results(beside) == {"y": "skipped", "z": "match"}


def test_an_empty_answer_beside_one_with_rows_differs_in_shape() -> None:
    none = np.zeros((0, 3), np.float32)
    assert compare(answer(y=LOGITS), answer(y=none), CLOSE).kind == "shape"


def test_a_scalar_is_compared_and_has_no_index() -> None:
    found = compare(answer(y=np.array(1.0)), answer(y=np.array(2.0)), CLOSE)
    assert (found.outcome, found.rows, found.rows_mismatch) == ("mismatch", 1, 1)
    assert found.differences[0].worst[0] == Element((), "1.0", "2.0")


def test_strings_are_compared_to_the_byte() -> None:
    labels, others = np.array([[b"cat"], [b"dog"]]), np.array([[b"cat"], [b"cow"]])
    found = compare(answer(label=labels), answer(label=others), CLOSE)
    assert found.differences[0].worst == (Element((1, 0), "dog", "cow"),)


def test_of_many_outputs_that_differ_a_bounded_number_is_told() -> None:
    names = [f"y{each}" for each in range(1_000)]
    one, two = np.array([1.0]), np.array([2.0])
    found = compare(answer(**dict.fromkeys(names, one)), answer(**dict.fromkeys(names, two)), CLOSE)
    assert found.outputs_differing == 1_000
    assert len(found.differences) == DIFFERENCES_MAX


def test_a_difference_says_which_rule_found_it_and_in_how_many_rows() -> None:
    reference = np.arange(8.0).reshape(4, 2)
    candidate = reference.copy()
    candidate[1] += 1
    candidate[3, 0] += 3
    (difference,) = compare(answer(y=reference), answer(y=candidate), rules("relative")).differences
    assert (difference.rule, difference.rows, difference.rows_mismatch) == ("relative", 4, 2)
    assert (difference.differing, difference.elements) == (3, 8)
    assert difference.score == pytest.approx(0.5)
    assert difference.worst[0].index == (1, 0)

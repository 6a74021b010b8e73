"""A reference's answer against a candidate's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Array
from coalmine_router.observer.compare import DIFFERENCES_MAX, Answer, Comparison, compare
from coalmine_router.observer.rules import Element
from tests.doubles.oip_backend import response_body
from tests.doubles.reports import rules

CLOSE = rules()
LOGITS: Array = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)


def answer(**outputs: Any) -> Answer:
    return Answer(response_body(**outputs))


def raw(*outputs: tuple[str, str, list[int], bytes]) -> Answer:
    """Return an answer of raw outputs, right or wrong: name, datatype, shape, bytes."""
    response = oip.ModelInferResponse(model_name="m")
    for name, datatype, shape, blob in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(blob)
    return Answer(response.SerializeToString())


def results(found: Comparison) -> dict[str, str]:
    return {each.output: each.outcome for each in found.outputs}


def test_equal_answers_match_whatever_model_gave_them() -> None:
    candidate = Answer(response_body("digits-next", version="2", logits=LOGITS))
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
    found = compare(answer(logits=LOGITS), Answer(typed.SerializeToString()), CLOSE)
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


# ---------------------------------------------------------------- status


def test_a_failed_candidate_is_an_error_and_no_mismatch() -> None:
    found = compare(answer(y=LOGITS), Answer(code="UNAVAILABLE", message="gone"), CLOSE)
    assert (found.outcome, found.kind, found.outputs) == ("error", "status", ())
    assert found.differences[0].worst == (Element((), "OK", "UNAVAILABLE: gone"),)


@pytest.mark.parametrize("candidate", [answer(y=LOGITS), Answer(code="INTERNAL"), Answer(b"\xff")])
def test_a_failed_reference_says_nothing_of_the_candidate(candidate: Answer) -> None:
    found = compare(Answer(code="INTERNAL"), candidate, CLOSE)
    assert found == Comparison("skipped", "status")


# ---------------------------------------------------------------- malformed

MALFORMED = {
    "not a message": Answer(b"\xff\xff"),
    "raw size": raw(("y", "FP32", [1, 3], b"\0" * 11)),
    "unknown datatype": raw(("y", "FP8", [1], b"\0")),
    "negative size": raw(("y", "FP32", [-1], b"\0" * 4)),
    "sizes that overflow": raw(("y", "FP32", [0, 2**62, 2**62], b"")),
    "bytes cut off": raw(("y", "BYTES", [1], b"\x09\0\0\0ab")),
    "name twice": raw(("y", "INT8", [1], b"\0"), ("y", "INT8", [1], b"\0")),
    "blobs missing": Answer(
        oip.ModelInferResponse(
            outputs=[oip.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[2])]
        ).SerializeToString()
    ),
}


@pytest.mark.parametrize("candidate", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_candidate_is_a_mismatch_that_says_what_is_wrong(candidate: Answer) -> None:
    found = compare(answer(y=LOGITS), candidate, CLOSE)
    assert (found.outcome, found.kind, found.outputs) == ("mismatch", "malformed", ())
    assert found.differences[0].worst[0].actual


@pytest.mark.parametrize("reference", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_reference_is_skipped(reference: Answer) -> None:
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
def test_an_ignored_output_may_be_missing_or_extra(candidate: Answer) -> None:
    chosen = rules(when={"rule": "ignore"})
    assert compare(answer(y=LOGITS, when=LOGITS), candidate, chosen).outcome == "match"
    assert compare(candidate, answer(y=LOGITS, when=LOGITS), chosen).outcome == "match"


@pytest.mark.parametrize("outputs", [{}, {"when": LOGITS}], ids=["none", "only ignored ones"])
def test_where_nothing_was_compared_nothing_matched(outputs: dict[str, Any]) -> None:
    found = compare(answer(**outputs), answer(**outputs), rules(when={"rule": "ignore"}))
    assert (found.outcome, found.kind) == ("skipped", "nothing")


# ---------------------------------------------------------------- values at the edges


def test_nan_and_infinity_on_both_sides_match() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float16)
    assert compare(answer(y=odd), answer(y=odd), CLOSE).outcome == "match"


def test_answers_of_no_rows_match() -> None:
    none = np.zeros((0, 10), np.float32)
    assert compare(answer(y=none), answer(y=none), CLOSE).outcome == "match"


def test_strings_are_compared_to_the_byte() -> None:
    labels, others = np.array([[b"cat"], [b"dog"]]), np.array([[b"cat"], [b"cow"]])
    found = compare(answer(label=labels), answer(label=others), CLOSE)
    assert found.differences[0].worst == (Element((1, 0), "dog", "cow"),)


def test_of_ten_thousand_outputs_that_differ_a_bounded_number_is_told() -> None:
    names = [f"y{each}" for each in range(10_000)]
    one, two = np.array([1.0]), np.array([2.0])
    found = compare(answer(**dict.fromkeys(names, one)), answer(**dict.fromkeys(names, two)), CLOSE)
    assert found.outputs_differing == 10_000
    assert len(found.differences) == DIFFERENCES_MAX


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=8))
def test_whatever_bytes_come_there_is_an_outcome(noise: bytes, at: int, patch: bytes) -> None:
    whole = response_body(y=LOGITS, label=np.array([b"cat"]))
    patched = whole[:at] + patch + whole[at + len(patch) :]
    for body in (noise, patched, whole[:at]):
        assert compare(Answer(whole), Answer(body), CLOSE).outcome in {"match", "mismatch"}
        assert compare(Answer(body), Answer(whole), CLOSE).outcome in {
            *("match", "mismatch", "skipped")
        }

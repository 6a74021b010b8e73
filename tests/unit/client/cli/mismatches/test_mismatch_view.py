"""Kept mismatches as the operator sees them."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.mismatch_bodies import read_bodies
from coalmine_client.cli.mismatches.mismatch_view import mismatch_view, mismatches_view
from tests.doubles.control import a_mismatch, request_body, response_body


def shown(view: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=120, markup=False, highlight=False).print(view)
    return file.getvalue()


def row(text: str, start: str) -> list[str]:
    """Return the words of the first line that begins with `start`."""
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_mismatches_show_id_trace_and_what_differs_on_one_line() -> None:
    text = shown(mismatches_view(pb.ListMismatchesResponse(mismatches=[a_judged_mismatch()])))

    assert "0af7651916cd43dd8448eb211c80319c" in text
    assert row(text, "m-17")[3:] == [
        "int8",
        "stable",
        "shadow",
        "logits",
        "by",
        "2.12",
        *("3", "of", "8"),
        "0af7651916cd43dd8448eb211c80319c",
    ]


def test_a_router_that_kept_no_mismatches_says_so() -> None:
    assert shown(mismatches_view(pb.ListMismatchesResponse())) == "no mismatches kept\n"


def one(mismatch: pb.Mismatch) -> str:
    return shown(mismatch_view(mismatch, read_bodies(mismatch)))


def test_a_mismatch_shows_both_tensors_with_the_differing_element_marked() -> None:
    text = one(a_mismatch(bodies=True))

    assert "0af7651916cd43dd8448eb211c80319c" in text
    assert "request  pixels FP32 [1, 64]" in text
    assert "value · 1 of 10 elements differ · max |diff| 2.125" in text
    assert "worst at [0, 3]: expected 0.375, got 2.5" in text
    assert row(text, "*") == ["*", "[0,", "3]", "0.375", "2.5", "2.12"]
    assert sum(line.startswith("*") for line in text.splitlines()) == 1
    assert "[0, 9]" in text


def test_a_mismatch_shows_what_was_asked_and_what_the_caller_noted() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.request = request_body(np.array([[0.5, np.nan, -0.0]], np.float32))
    mismatch.note = "batch 7 of the nightly run"

    text = one(mismatch)

    assert "note     batch 7 of the nightly run" in text
    assert "\n  pixels: 0.5, nan, -0.0\n" in text


def test_of_a_large_input_the_first_elements_are_shown() -> None:
    text = one(a_mismatch(bodies=True))

    assert f"pixels: {', '.join(['0.0'] * 40)}, … (64 elements)" in " ".join(text.split())


def test_without_bodies_no_input_is_shown() -> None:
    assert "pixels:" not in one(a_mismatch())


def test_the_list_shows_a_rules_own_score() -> None:
    mismatch = a_judged_mismatch()
    mismatch.differences[0].MergeFrom(pb.Difference(rule="cosine", score=0.25, badness=0.75))

    text = shown(mismatches_view(pb.ListMismatchesResponse(mismatches=[mismatch])))

    assert "logits: cosine 0.25" in text


def test_of_a_large_tensor_the_elements_furthest_apart_are_shown() -> None:
    reference = np.zeros((1, 1_000), np.float32)
    candidate = np.linspace(0, 1, 1_000, dtype=np.float32).reshape(1, -1)
    mismatch = a_mismatch(bodies=True)
    mismatch.reference_response = response_body(reference)
    mismatch.candidate_response = response_body(candidate)
    mismatch.differences[0].differing = 2

    text = one(mismatch)

    assert "the 40 furthest apart of 1,000 elements" in text
    assert "[0, 999]" in text
    assert "[0, 960]" in text
    assert "[0, 959]" not in text
    assert [line.split()[2] for line in text.splitlines() if line.startswith("*")] == [
        "998]",
        "999]",
    ]


def test_tensors_of_different_shapes_are_described_one_after_the_other() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = response_body(np.arange(12, dtype=np.float32))
    mismatch.differences[0].CopyFrom(
        pb.Difference(output="logits", kind="shape", expected="[1, 10]", actual="[12]")
    )

    text = one(mismatch)

    assert "logits   shape\n  expected [1, 10], got [12]" in text
    assert "  int8: logits FP32 [12]: 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, …" in text


def test_an_output_that_is_missing_is_shown_on_the_side_that_has_it() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = response_body(np.zeros(1, np.float32), name="other")
    mismatch.differences[0].kind = "missing"

    assert "  int8: no such tensor" in one(mismatch)


def test_a_candidate_that_failed_shows_its_status_and_has_no_tensors() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = b""
    mismatch.differences[0].CopyFrom(
        pb.Difference(kind="status", expected="OK", actual="UNAVAILABLE: gone")
    )

    text = one(mismatch)

    assert "answer   status\n  expected OK, got UNAVAILABLE: gone" in text


def test_a_mismatch_whose_bodies_were_too_large_says_so_and_shows_the_worst_element() -> None:
    mismatch = a_mismatch()
    mismatch.bodies_dropped = True

    text = one(mismatch)

    assert "not kept a body was over the limit (body_bytes_max)" in text
    assert "  int8: not kept\n" in text
    assert "worst at [0, 3]: expected 0.375, got 2.5" in text


def test_a_body_that_is_malformed_says_why() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = b"\xff"

    assert "  int8: can't be read: " in one(mismatch)


def a_judged_mismatch(*, bodies: bool = False) -> pb.Mismatch:
    """Return a mismatch as today's router keeps it: by row, of a trial, with its rule."""
    mismatch = a_mismatch(bodies=bodies)
    mismatch.MergeFrom(
        pb.Mismatch(
            role="shadow",
            kind="value",
            capture="full",
            rows=8,
            rows_mismatch=3,
            trial=4,
            reference_version="1",
            candidate_version="2",
            reference_address="10.0.0.1:8001",
            candidate_address="10.0.0.7:8001",
            segment="acme",
            request_id="r-1",
        )
    )
    difference = mismatch.differences[0]
    difference.rule, difference.score, difference.rows, difference.rows_mismatch = (
        "close",
        0.5,
        8,
        3,
    )
    return mismatch


def test_the_head_says_how_it_came_about_and_between_which_versions() -> None:
    text = one(a_judged_mismatch(bodies=True))

    assert "digits: int8 against stable\n" in text
    assert row(text, "by") == ["by", "shadow,", "trial", "4"]
    assert row(text, "versions") == ["versions", "stable", "1,", "int8", "2"]
    assert row(text, "rows") == ["rows", "3", "of", "8", "differ"]
    assert row(text, "segment") == ["segment", "acme"]
    assert "address  stable 10.0.0.1:8001, int8 10.0.0.7:8001" in text
    assert row(text, "caller's") == ["caller's", "r-1"]
    assert "not kept" not in text


def test_a_difference_says_by_which_rule_in_how_many_rows_and_how_far() -> None:
    assert (
        "logits   value by rule close · 3 of 8 rows · 1 of 10 elements differ"
        " · max |diff| 2.125 · score 0.5\n"
    ) in one(a_judged_mismatch(bodies=True))


def redacted(capture: str) -> pb.Mismatch:
    mismatch = a_judged_mismatch()
    mismatch.capture = capture
    mismatch.differences[0].ClearField("expected")
    mismatch.differences[0].ClearField("actual")
    if capture == "shapes":
        mismatch.shapes.add(side="request", name="pixels", datatype="FP32", shape=[1, 64])
        mismatch.shapes.add(side="candidate", name="logits", datatype="FP32", shape=[1, 10])
    return mismatch


def test_of_a_route_that_keeps_shapes_the_shapes_are_shown_and_why_there_is_no_more() -> None:
    text = one(redacted("shapes"))

    assert "request  pixels FP32 [1, 64]\n" in text
    assert "not kept the route keeps shapes and no values (capture: shapes)\n" in text
    assert "  worst at [0, 3]: values are not kept\n" in text
    assert "  stable: not kept\n  int8: logits FP32 [1, 10], not kept\n" in text


def test_of_a_route_that_keeps_nothing_what_differs_is_shown_and_why_there_is_no_more() -> None:
    text = one(redacted("none"))

    assert "request  not kept\n" in text
    assert "not kept the route keeps no values and no shapes (capture: none)\n" in text
    assert "max |diff| 2.125" in text


def test_inputs_that_were_dropped_are_named() -> None:
    mismatch = a_judged_mismatch(bodies=True)
    mismatch.inputs_dropped.append("name")

    assert "not kept inputs that the route drops: name\n" in one(mismatch)
    mismatch.request = b""
    assert "not kept the request: it can't be told which bytes are" in one(mismatch)


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb"])
def test_names_that_callers_and_models_choose_cant_write_to_the_terminal(hostile: str) -> None:
    mismatch = a_judged_mismatch()
    mismatch.segment = mismatch.request_id = mismatch.candidate_version = hostile
    mismatch.shapes.add(side="request", name=hostile, datatype=hostile)
    mismatch.differences[0].rule = hostile

    assert hostile not in one(mismatch)

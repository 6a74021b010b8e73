"""What is kept of a mismatch, by what its route allows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.route import RouteConfig
from coalmine_router.metadata import NOTE
from coalmine_router.observer.comparison.result import (
    ComparedAnswer,
    Comparison,
    Difference,
    Element,
)
from coalmine_router.observer.examples.example_store import ExampleStore
from coalmine_router.observer.examples.records import SHAPES_MAX, TEXT_MAX, mismatch_record
from coalmine_router.observer.observed_request import ObservedRequest, PairResult
from tests.doubles.clock import HandClock
from tests.doubles.disk import contents
from tests.doubles.oip_backend import request_body, response_body
from tests.doubles.reports import report

SECRET = b"a-planted-secret"
TEXTS = np.array([SECRET], object)
REQUEST = request_body("digits", request_id="r-1", pixels=np.zeros((1, 4)), name=TEXTS)
REFERENCE = response_body(y=np.zeros(4), label=TEXTS)
CANDIDATE = response_body(y=np.ones(4), label=np.array([SECRET + b"!"], object))
DIFFERENCES = (
    Difference(
        "label",
        "value",
        (Element((0,), SECRET.decode(), f"{SECRET.decode()}!"),),
        differing=1,
        elements=1,
        rows=1,
        rule="exact",
        score=0.25,
    ),
)


def settings(**fields: Any) -> RouteConfig:
    variants = {"stable": {"backend": "b"}}
    told = {"name": "digits", "match": {"model": "digits"}, "variants": variants}
    return RouteConfig.model_validate({**told, **fields})


def found(*differences: Difference) -> PairResult:
    return PairResult(
        role="audit",
        reference="stable",
        candidate="canary",
        comparison=Comparison("mismatch", "value", differences or DIFFERENCES, 1, (), 8, 3, 0.5),
        span_id=b"compare1",
        started_ns=77,
        duration_ns=1,
        reference_version="1",
        candidate_version="2",
        reference_address="10.0.0.1:8001",
        candidate_address="10.0.0.7:8001",
        trial=4,
    )


def made(
    *,
    request: bytes = REQUEST,
    reference: bytes = REFERENCE,
    candidate: bytes = CANDIDATE,
    differences: tuple[Difference, ...] = (),
    method: str | None = None,
    note: bytes = b"batch 7",
    **fields: Any,
) -> pb.Mismatch:
    metadata = [("x-other", b"-"), (NOTE, note), (NOTE, b"a second one")]
    observed = ObservedRequest.of(report(request, reference, shadows=["canary"], metadata=metadata))
    if method:
        observed.report.method = method
    return mismatch_record(
        "id",
        observed,
        found(*differences),
        reference=ComparedAnswer(reference),
        candidate=ComparedAnswer(candidate),
        settings=settings(**fields),
        segment="acme",
    )


def shapes(record: pb.Mismatch) -> list[tuple[str, str, str, list[int]]]:
    return [(each.side, each.name, each.datatype, list(each.shape)) for each in record.shapes]


def test_a_record_says_who_was_compared_and_how_they_differ() -> None:
    record = made()

    assert (record.at_ns, record.route, record.role, record.kind) == (
        77,
        "digits",
        "audit",
        "value",
    )
    assert (record.reference, record.candidate) == ("stable", "canary")
    assert (record.reference_version, record.candidate_version, record.trial) == ("1", "2", 4)
    assert record.reference_address == "10.0.0.1:8001"
    assert record.candidate_address == "10.0.0.7:8001"
    assert (record.rows, record.rows_mismatch, record.segment) == (8, 3, "acme")
    assert (record.request_id, record.note, len(record.trace_id)) == ("r-1", "batch 7", 16)
    assert list(record.differences) == [
        pb.Difference(
            output="label",
            kind="value",
            index=[0],
            expected="a-planted-secret",
            actual="a-planted-secret!",
            differing=1,
            elements=1,
            rows=1,
            rows_mismatch=1,
            rule="exact",
            score=0.25,
        )
    ]


@pytest.mark.parametrize(
    ("value", "kept"),
    [(b"", ""), (b"x" * 9_000, "x" * (TEXT_MAX - 1) + "…"), (b"\xff\xfe", "\ufffd\ufffd")],
)
def test_a_note_of_any_bytes_is_kept_as_text_and_is_bounded(value: bytes, kept: str) -> None:
    assert made(note=value).note == kept


@pytest.mark.parametrize(("capture", "kept"), [("shapes", "batch 7"), ("none", "")])
def test_a_note_is_kept_where_the_callers_id_is(capture: str, kept: str) -> None:
    assert made(kept={"capture": capture}).note == kept


def test_by_default_all_three_bodies_are_kept_and_what_they_hold() -> None:
    record = made()

    assert (record.capture, record.bodies_dropped) == ("full", False)
    assert (record.request, record.reference_response) == (REQUEST, REFERENCE)
    assert record.candidate_response == CANDIDATE
    assert shapes(record) == [
        ("request", "pixels", "FP64", [1, 4]),
        ("request", "name", "BYTES", [1]),
        ("reference", "y", "FP64", [4]),
        ("reference", "label", "BYTES", [1]),
        ("candidate", "y", "FP64", [4]),
        ("candidate", "label", "BYTES", [1]),
    ]


def test_the_answers_are_those_that_were_compared_not_what_the_caller_got() -> None:
    observed = ObservedRequest.of(report(REQUEST, CANDIDATE, shadows=["stable"]))

    record = mismatch_record(
        "id",
        observed,
        found(),
        reference=ComparedAnswer(REFERENCE),
        candidate=ComparedAnswer(CANDIDATE),
        settings=settings(),
    )

    assert (record.reference_response, record.candidate_response) == (REFERENCE, CANDIDATE)


def test_a_sensitive_route_keeps_shapes() -> None:
    record = made(sensitive=True)

    assert record.capture == "shapes"
    assert len(shapes(record)) == 6
    assert not record.request + record.reference_response + record.candidate_response
    assert record.request_id == "r-1"


def test_with_capture_none_there_are_no_shapes_either() -> None:
    record = made(kept={"capture": "none"})

    assert (shapes(record), record.request_id) == ([], "")
    assert record.rows_mismatch == 3


@pytest.mark.parametrize("over", [0, 1])
def test_bodies_over_the_limit_are_left_out_all_three(over: int) -> None:
    limit = max(map(len, (REQUEST, REFERENCE, CANDIDATE))) - over

    config = settings().kept.model_copy(update={"body_bytes_max": limit})
    observed = ObservedRequest.of(report(REQUEST, REFERENCE, shadows=["canary"]))
    record = mismatch_record(
        "id",
        observed,
        found(),
        reference=ComparedAnswer(REFERENCE),
        candidate=ComparedAnswer(CANDIDATE),
        settings=settings(kept=config),
    )

    assert record.bodies_dropped is bool(over)
    kept = (record.request, record.reference_response, record.candidate_response)
    assert all(kept) is not bool(over)
    assert any(kept) is not bool(over)
    assert len(shapes(record)) == 6


def test_named_inputs_are_dropped_and_their_shapes_are_not() -> None:
    record = made(kept={"drop_inputs": ["name", "other"]})

    assert list(record.inputs_dropped) == ["name"]
    assert SECRET not in record.request
    assert ("request", "name", "BYTES", [1]) in shapes(record)


def test_another_services_messages_are_kept_as_they_are_and_have_no_shapes() -> None:
    record = made(method="acme.Search/Find")

    assert (record.request, shapes(record)) == (REQUEST, [])


def test_another_services_request_isnt_kept_where_inputs_are_to_be_dropped() -> None:
    record = made(method="acme.Search/Find", kept={"drop_inputs": ["name"]})

    assert (record.request, list(record.inputs_dropped)) == (b"", ["name"])
    assert record.candidate_response == CANDIDATE


@pytest.mark.parametrize("body", [b"", b"\xff\xff"])
def test_answers_that_cant_be_read_have_no_shapes(body: bytes) -> None:
    assert {side for side, *_ in shapes(made(candidate=body))} == {"request", "reference"}


def test_no_name_and_no_list_of_names_makes_a_record_large() -> None:
    many: dict[str, Any] = {f"{at}-{'x' * 5_000}": np.zeros(1) for at in range(200)}
    long = Difference("y" * 9_999, "value", (Element((), "e" * 9_999, "a" * 9_999),))

    record = made(reference=response_body(**many), differences=(long,), sensitive=True)

    assert sum(each.side == "reference" for each in record.shapes) == SHAPES_MAX
    assert max(len(each.name) for each in record.shapes) == TEXT_MAX
    assert len(record.differences[0].output) == TEXT_MAX


# ---------------------------------------------------------------- on the disk


@pytest.mark.parametrize(
    ("fields", "is_there"),
    [
        ({}, True),
        ({"sensitive": True}, False),
        ({"kept": {"capture": "none"}}, False),
        ({"kept": {"capture": "shapes"}}, False),
    ],
)
async def test_no_byte_of_a_secret_reaches_a_disk_where_values_may_not(
    tmp_path: Path, fields: dict[str, Any], is_there: bool
) -> None:
    quoting = Difference("", "status", (Element((), "OK", f"INTERNAL: no {SECRET.decode()}"),))
    config = settings(**fields)
    kept = ExampleStore(tmp_path / "m.sqlite", routes={"digits": config}, clock=HandClock())
    kept.offer(made(**fields))
    second = made(differences=(quoting,), **fields)
    second.id = "second"
    kept.offer(second)
    await kept.write()
    while_open = contents(tmp_path)
    assert kept.totals()["kept"] == 2
    await kept.close()

    assert (SECRET in while_open) is (SECRET in contents(tmp_path)) is is_there


async def test_no_byte_of_an_input_that_is_dropped_reaches_a_disk(tmp_path: Path) -> None:
    quiet = Difference("y", "value", (Element((0,), "0.0", "1.0"),))
    fields: dict[str, Any] = {"kept": {"drop_inputs": ["name"]}}
    answer = response_body(y=np.ones(4))
    kept = ExampleStore(
        tmp_path / "m.sqlite", routes={"digits": settings(**fields)}, clock=HandClock()
    )
    kept.offer(made(reference=answer, candidate=answer, differences=(quiet,), **fields))
    await kept.close()

    assert b"pixels" in contents(tmp_path)
    assert SECRET not in contents(tmp_path)

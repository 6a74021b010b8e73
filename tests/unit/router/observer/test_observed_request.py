"""A report as an observed request: its copies, its bodies, and the memory that it holds."""

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.observer.observed_request import Copy, ObservedRequest, copies_of
from tests.doubles.oip_backend import request_body
from tests.doubles.reports import report


def test_each_copy_that_was_drawn_is_waited_for() -> None:
    drawn = report(b"asked", b"given", shadows=["int8", "canary"], audit="canary", noise=True)
    assert list(copies_of(drawn)) == [
        Copy("shadow", "int8"),
        Copy("shadow", "canary"),
        Copy("audit", "canary"),
        Copy("noise", "stable"),
    ]
    assert ObservedRequest.of(drawn).waiting == 4


def test_bodies_are_taken_out_of_the_report_and_counted() -> None:
    batch = pb.ReportBatch(reports=[report(b"asked", b"given!", shadows=["int8"])])
    made = ObservedRequest.of(batch.reports[0])
    assert (made.request, made.response, made.size_bytes) == (b"asked", b"given!", 11)
    assert made.report is not batch.reports[0], "it would keep its whole batch alive"
    assert not batch.reports[0].request_body
    assert not made.report.response_body
    assert made.report.trace_id == batch.reports[0].trace_id


def test_without_a_copy_nothing_is_held() -> None:
    made = ObservedRequest.of(report(b"asked", b"given"))
    assert (made.waiting, made.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"trace_id": b"short"},
        {"span_id": b""},
        {"span_id": b"123456789"},
        {"parent_span_id": b"1"},
    ],
)
def test_ids_of_another_size_are_refused(odd: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match="16 bytes"):
        ObservedRequest.of(report(**odd))  # type: ignore[arg-type]


def test_a_call_with_an_id_of_another_size_is_refused_too() -> None:
    made = report()
    made.attempts[0].span_id = b"x"
    with pytest.raises(InvalidRequest):
        ObservedRequest.of(made)


def test_the_callers_id_of_a_request_that_cannot_be_read_is_empty() -> None:
    asked = request_body("digits", request_id="order-1")
    assert ObservedRequest.of(report(asked, b"", shadows=["int8"])).request_id() == "order-1"
    assert ObservedRequest.of(report(b"\xff\xff", b"", shadows=["int8"])).request_id() == ""


def test_a_requests_id_is_read_of_inference_alone() -> None:
    body = request_body("digits", request_id="r-1")
    assert ObservedRequest.of(report(body, b"", shadows=["int8"])).request_id() == "r-1"
    # Of another service's message, whatever stands in that place may be a secret.
    other = report(body, b"", shadows=["int8"], method="acme.Billing/Charge")
    assert ObservedRequest.of(other).request_id() == ""
    assert ObservedRequest.of(report(b"\xff", b"", shadows=["int8"])).request_id() == ""

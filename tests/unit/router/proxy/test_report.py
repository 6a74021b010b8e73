import random

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.channels import COPY_BYTES_MAX, Channels
from coalmine_router.proxy.backends import BoundVariant, Target
from coalmine_router.proxy.caller import Caller
from coalmine_router.proxy.exchange import (
    Assigned,
    Began,
    Ended,
    Exchange,
    begin_trace,
)
from coalmine_router.proxy.forward import Outcome
from coalmine_router.proxy.report import write_report
from coalmine_router.table import Backend, Variant

METHOD = "inference.GRPCInferenceService/ModelInfer"
PARENT = Parent(b"p" * 16, b"q" * 8, sampled=True)
OK = Outcome(grpc.StatusCode.OK, "", b"answer", (), ())


def exchange(*shadows: str, parent: Parent | None = None, request: bytes = b"asked") -> Exchange:
    caller = Caller(parent, "a=1", None, [("x-user", "ann"), ("k-bin", b"\xff")])
    trace = begin_trace(caller, HeadSampler(0.0, parent_based=True), random.Random(1))
    begun = Exchange(request, caller, trace, Began(1_000, 50))
    variant = BoundVariant(
        Variant("stable", "blue", weight_bp=9_000), Backend("blue", ("dns:///b:1",)), Channels()
    )
    # No call is made: the target is only named.
    target = Target("b:1", None, None)  # type: ignore[arg-type]
    begun.assigned = Assigned(
        "digits", "digits-model", 7, variant, target, pb.ASSIGNMENT_STICKY, list(shadows), 1.0
    )
    begun.call_began_ns = 60
    return begun


def report_of(ended: Ended) -> pb.Report:
    report = pb.Report()
    write_report(report, METHOD, ended)
    return report


def test_a_report_says_what_was_chosen_and_what_happened() -> None:
    begun = exchange(parent=PARENT)
    report = report_of(begun.ended(OK))
    assert (report.route, report.model, report.variant) == ("digits", "digits-model", "stable")
    assert (report.assignment, report.revision, report.weight_bp) == (
        pb.ASSIGNMENT_STICKY,
        7,
        9_000,
    )
    assert (report.trace_id, report.parent_span_id) == (PARENT.trace_id, PARENT.span_id)
    assert (report.sampled, report.tracestate, report.method) == (True, "a=1", METHOD)
    assert (report.request_bytes, report.response_bytes) == (5, 6)
    assert (report.status_code, report.origin_router) == (0, False)


def test_times_of_the_call_lie_within_those_of_the_request() -> None:
    report = report_of(exchange().ended(OK))
    [attempt] = report.attempts
    assert report.started_ns == 1_000
    assert attempt.started_ns == 1_010
    assert report.duration_ns - attempt.duration_ns == 10
    assert (attempt.variant, attempt.backend, attempt.address) == ("stable", "blue", "b:1")
    assert attempt.span_id != report.span_id


def test_without_shadows_no_body_is_held_or_reported() -> None:
    ended = exchange(request=bytes(1_000_000)).ended(OK)
    report = report_of(ended)
    assert ended.held_bytes < 10_000
    assert not report.request_body
    assert not report.metadata
    assert report.request_bytes == 1_000_000


def test_a_request_that_a_shadow_wants_carries_bodies_and_metadata() -> None:
    report = report_of(exchange("int8").ended(OK))
    assert (report.request_body, report.response_body) == (b"asked", b"answer")
    assert [(each.key, each.value) for each in report.metadata] == [
        ("x-user", b"ann"),
        ("k-bin", b"\xff"),
    ]
    assert list(report.shadows) == ["int8"]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Outcome(grpc.StatusCode.INTERNAL, "it broke", b"", (), ()), "primary_failed"),
        (Outcome(grpc.StatusCode.OK, "", bytes(COPY_BYTES_MAX), (), ()), "too_large"),
    ],
)
def test_a_drawn_request_without_bodies_says_why(outcome: Outcome, why: str) -> None:
    report = report_of(exchange("int8").ended(outcome))
    assert report.uncopied == why
    assert not report.request_body
    assert not report.response_body


def test_a_request_that_no_route_matched_has_no_attempt() -> None:
    begun = exchange()
    begun.assigned = None
    refused = Outcome(grpc.StatusCode.NOT_FOUND, "no route", b"", (), (), here=True)
    report = report_of(begun.ended(refused))
    assert not report.route
    assert not report.attempts
    assert (report.status_code, report.origin_router) == (5, True)


def test_a_long_message_is_cut() -> None:
    outcome = Outcome(grpc.StatusCode.INTERNAL, "x" * 100_000, b"", (), ())
    assert len(report_of(exchange().ended(outcome)).status_message) == 2_048

"""A finished exchange as spans."""

from collections.abc import Sequence

import numpy as np
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.observer.compare import Answer, Comparison, Difference
from coalmine_router.observer.exchange import Compared, Exchange, ShadowCall
from coalmine_router.observer.rules import Element
from coalmine_router.observer.spans import EVENTS_MAX, tree
from tests.doubles.oip_backend import request_body
from tests.doubles.reports import report

RESOURCE = Resource({"service.name": "coalmine-router"})
REQUEST = request_body("digits", request_id="r-1", pixels=np.zeros((1, 4), np.float32))


def call(answer: Answer, variant: str = "canary") -> ShadowCall:
    return ShadowCall(variant, "green", "10.0.0.7:8001", b"shadow-1", 5_000, 700, answer)


def compared(found: Comparison) -> Compared:
    return Compared(found, b"compare1", 6_000, 50)


def spans_of(made: pb.Report, *shadowed: tuple[ShadowCall, Compared]) -> Sequence[ReadableSpan]:
    exchange = Exchange.of(made)
    exchange.shadowed.extend(shadowed)
    return tree(exchange, RESOURCE)


def test_every_span_says_that_it_is_sampled_whatever_the_head_said() -> None:
    made = report(REQUEST, b"", shadows=["canary"], sampled=False)
    spans = spans_of(made, (call(Answer()), compared(Comparison("mismatch"))))
    assert len(spans) == 4
    assert all(each.context and each.context.trace_flags.sampled for each in spans)
    assert {each.context.trace_id for each in spans if each.context} == {
        int.from_bytes(made.trace_id, "big")
    }


def test_the_root_has_no_parent_unless_the_caller_is_one() -> None:
    alone, called = spans_of(report())[0], spans_of(report(parent_span_id=b"callerid"))[0]
    assert alone.parent is None
    assert called.parent is not None
    assert called.parent.is_remote
    assert called.parent.span_id == int.from_bytes(b"callerid", "big")


def test_the_callers_tracestate_goes_with_every_span() -> None:
    spans = spans_of(report(tracestate="a=1,b=2"))
    states = [dict(each.context.trace_state) for each in spans if each.context]
    assert states == [{"a": "1", "b": "2"}] * 2


def test_calls_stand_under_the_server_span_with_their_times() -> None:
    spans = spans_of(
        report(REQUEST, b"", shadows=["canary"]), (call(Answer()), compared(Comparison("match")))
    )
    server, *below = spans
    assert server.kind is SpanKind.SERVER
    assert [each.kind for each in below] == [SpanKind.CLIENT] * 2 + [SpanKind.INTERNAL]
    parents = {each.parent.span_id for each in below if each.parent}
    assert parents == {server.context.span_id} if server.context else False
    assert [(each.start_time, each.end_time) for each in below[1:]] == [
        (5_000, 5_700),
        (6_000, 6_050),
    ]
    assert [dict(each.attributes or {}).get(t.ROLE) for each in below] == [
        "primary",
        "shadow",
        None,
    ]


def test_each_attempt_has_a_span_with_its_own_status() -> None:
    made = report()
    made.attempts[0].status_code = 14
    made.attempts[0].status_message = "canary gone"
    made.attempts.add(span_id=b"attempt2", variant="stable", backend="blue", address="h:1")
    server, first, second = spans_of(made)
    assert (server.status.status_code, second.status.status_code) == (StatusCode.UNSET,) * 2
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "canary gone"
    assert dict(first.attributes or {})[t.RPC_STATUS] == "UNAVAILABLE"


def test_a_fallback_names_who_was_chosen_and_each_call_its_variant() -> None:
    made = report(assignment=pb.ASSIGNMENT_FALLBACK, chosen="canary")
    made.attempts[0].variant = "canary"
    made.attempts[0].status_code = 14
    made.attempts.add(span_id=b"attempt2", variant="stable", backend="blue", address="h:1")
    server, first, second = (dict(each.attributes or {}) for each in spans_of(made))
    assert (server[t.ASSIGNMENT], server[t.CHOSEN]) == ("fallback", "canary")
    assert (server[t.VARIANT], first[t.VARIANT], second[t.VARIANT]) == (
        *("stable", "canary", "stable"),
    )


def test_a_request_that_was_turned_away_says_where_and_why() -> None:
    made = report(variant="", status_code=8, turned_away="in_flight")
    del made.attempts[:]
    (server,) = (dict(each.attributes or {}) for each in spans_of(made))
    assert (server[t.ROUTE], server[t.TURNED_AWAY]) == ("digits", "in_flight")
    assert t.VARIANT not in server


def test_a_request_of_no_route_says_only_what_the_caller_sent() -> None:
    made = report(route="", variant="", status_code=5, status_message="no route", model="nope")
    del made.attempts[:]
    (server,) = spans_of(made)
    assert set(server.attributes or {}) == {t.RPC_SYSTEM, t.RPC_METHOD, t.RPC_STATUS, t.MODEL}
    assert server.status.description == "no route"


def test_an_assignment_that_a_newer_proxy_knows_is_unspecified() -> None:
    server = spans_of(report(assignment=99))[0]
    assert dict(server.attributes or {})[t.ASSIGNMENT] == "unspecified"


def test_events_of_differing_outputs_are_bounded_and_their_number_told() -> None:
    huge = Element((0,), "x" * 10_000, "y" * 10_000)
    differences = tuple(Difference(f"y{each}", "value", (huge,)) for each in range(64))
    found = Comparison("mismatch", "value", differences, outputs_differing=10_000)
    span = spans_of(report(REQUEST, b"", shadows=["canary"]), (call(Answer()), compared(found)))[-1]
    assert len(span.events) == EVENTS_MAX
    assert dict(span.attributes or {})[t.COMPARE_OUTPUTS_DIFFERING] == 10_000
    lengths = [len(str(value)) for value in (span.events[0].attributes or {}).values()]
    assert max(lengths) == 2_048


def test_a_request_that_can_not_be_read_has_no_id() -> None:
    server = spans_of(report(b"\xff\xff", b"", shadows=["canary"]))[0]
    assert t.REQUEST_ID not in (server.attributes or {})


def test_an_exchange_keeps_its_bodies_apart_from_the_batch_it_came_in() -> None:
    batch = pb.ReportBatch(reports=[report(REQUEST, b"answer", shadows=["canary"])])
    exchange = Exchange.of(batch.reports[0])
    assert (exchange.request, exchange.response, exchange.waiting) == (REQUEST, b"answer", 1)
    assert not exchange.report.request_body
    assert batch.ByteSize() < len(REQUEST) + 400
    batch.reports[0].route = "changed"
    assert exchange.report.route == "digits"


@pytest.mark.parametrize(
    "fields", [{"trace_id": b""}, {"span_id": b"x" * 9}, {"parent_span_id": b"short"}]
)
def test_a_report_with_ids_of_another_size_is_refused(fields: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match="16 bytes"):
        Exchange.of(report(**fields))  # type: ignore[arg-type]  # fields of the message

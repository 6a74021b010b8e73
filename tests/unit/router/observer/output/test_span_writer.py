"""Which requests are told as spans, with how much of them, and what is told of a verdict."""

import random
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs

from coalmine import telemetry as t
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Verdict, VerdictChange
from coalmine_router.observer.observed_request import ObservedRequest
from coalmine_router.observer.output.span_writer import NoSpans, SpanWriter
from coalmine_router.observer.route_settings import UNSET, settings_of
from tests.doubles.clock import HandClock
from tests.doubles.evidence import FAIL
from tests.doubles.observed_requests import (
    MATCH,
    copy_call,
    failed,
    mismatch,
    observed_request,
    pair_result,
)
from tests.doubles.reports import UNUSED, report, router_config, settings
from tests.doubles.span_list import SpanList

GONE = ComparedAnswer(code="INTERNAL", message="no digit in 'hunter2'")


def told(of: ObservedRequest, **route: Any) -> list[ReadableSpan]:
    config = router_config(route=route, stable=UNUSED, canary=UNUSED)
    kept = SpanList()
    writer = SpanWriter(kept, Resource({}), random.Random(1), HandClock())
    writer.write_request(of, settings_of(settings(config)["digits"]))
    return kept.spans


def change(verdict: Verdict = FAIL, span_id: bytes = b"tipped!!") -> VerdictChange:
    pair = ("digits", "stable", "canary")
    return VerdictChange(
        *pair, NO_VERDICT, verdict, at_ns=1, trial=3, trace_id=b"x" * 16, span_id=span_id
    )


def test_an_unsampled_match_is_not_told_and_a_mismatch_is() -> None:
    assert told(observed_request(pair_result(MATCH), sampled=False)) == []
    assert len(told(observed_request(pair_result(mismatch()), sampled=False))) == 4


def test_a_request_is_slow_by_the_threshold_of_its_own_route() -> None:
    slow = observed_request(sampled=False, duration_ns=200_000_000)
    assert told(slow) == []
    assert told(slow, gates={"slow": {"over": "150ms"}})
    assert told(slow, gates={"slow": {"over": "250ms"}}) == []


def test_a_match_that_tipped_a_verdict_is_told_and_says_so() -> None:
    what = pair_result(MATCH)
    of = observed_request(what, sampled=False)
    of.changes = [change(span_id=what.span_id)]
    (compared,) = [each for each in told(of) if t.COMPARE_OUTCOME in (each.attributes or {})]
    assert (compared.attributes or {})[t.TIPPED] == "fail"


def test_a_request_of_the_split_that_tipped_a_verdict_says_so_itself() -> None:
    of = observed_request(sampled=False)
    of.changes = [change(span_id=of.report.span_id)]
    server, *_ = told(of)
    assert (server.attributes or {})[t.TIPPED] == "fail"


@pytest.mark.parametrize("route", [{"sensitive": True}, {"kept": {"capture": "none"}}])
def test_of_a_route_that_keeps_no_values_no_message_of_an_error_is_told(route: Any) -> None:
    def texts(**kept: Any) -> list[str | None]:
        of = observed_request(
            pair_result(failed("INTERNAL")),
            calls=[copy_call(answer=GONE)],
            status_code=3,
            status_message="'hunter2' is no digit",
        )
        return [each.status.description for each in told(of, **kept)]

    assert any("hunter2" in (each or "") for each in texts())
    assert not any("hunter2" in (each or "") for each in texts(**route))
    assert {"INVALID_ARGUMENT", "INTERNAL"} <= set(texts(**route))


def test_a_verdict_is_one_line_in_the_log_and_one_span() -> None:
    kept = SpanList()
    with capture_logs() as logs:
        SpanWriter(kept, Resource({}), random.Random(1), HandClock()).write_verdict(change())
    (line,) = logs
    assert (line["event"], line["route"], line["candidate"], line["verdict"], line["before"]) == (
        *("verdict", "digits", "canary", "fail", "inconclusive"),
    )
    assert (line["reason"], line["trial"], line["trace_id"]) == (FAIL.reason, 3, "78" * 16)
    (span,) = kept.spans
    assert span.name == "verdict canary: fail"


def refused() -> ObservedRequest:
    """A request for a model that there is no route for."""
    made = report(route="", variant="", status_code=5, origin_router=True, model="nope")
    del made.attempts[:]
    return ObservedRequest.of(made)


def test_of_requests_without_a_route_one_a_second_leaves_a_trace_and_the_others_are_counted() -> (
    None
):
    kept, clock = SpanList(), HandClock()
    writer = SpanWriter(kept, Resource({}), random.Random(1), clock)
    for now_ns in (0, 1, 10**9 - 1, 10**9, 10**9 + 5, 7 * 10**9):
        clock.now_ns = now_ns
        writer.write_request(refused(), UNSET)
    writer.write_request(observed_request(status_code=13), UNSET)
    assert [(each.attributes or {}).get(t.REFUSED) for each in kept.spans] == [
        *(True, True, True),
        *(None, None),  # of the request that has a route, and its call
    ]
    assert {each.status.status_code for each in kept.spans[:3]} == {StatusCode.ERROR}
    assert writer.refusals_left_out == 3


def test_without_a_reader_of_spans_telling_does_nothing() -> None:
    NoSpans().on_end(told(observed_request())[0])
    assert NoSpans().totals() == {}

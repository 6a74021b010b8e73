"""An observed request as spans."""

import math
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.observer.comparison.result import (
    ComparedAnswer,
    Comparison,
    Difference,
    Element,
    OutputResult,
)
from coalmine_router.observer.observed_request import ObservedRequest
from coalmine_router.observer.output.request_spans import EVENTS_MAX, request_spans
from tests.doubles.observed_requests import (
    MATCH,
    copy_call,
    difference,
    failed,
    mismatch,
    observed_request,
    pair_result,
)
from tests.doubles.reports import report

RESOURCE = Resource({"service.name": "coalmine-router"})
OUTPUT = t.COMPARE_OUTPUT_PREFIX


def spans_of(made: pb.Report) -> Sequence[ReadableSpan]:
    return request_spans(ObservedRequest.of(made), RESOURCE)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# ---------------------------------------------------------------- the tree


def test_every_span_says_that_it_is_sampled_whatever_the_head_said() -> None:
    made = observed_request(pair_result(mismatch()), sampled=False)
    spans = request_spans(made, RESOURCE)
    assert len(spans) == 4
    assert all(each.context and each.context.trace_flags.sampled for each in spans)
    assert {each.context.trace_id for each in spans if each.context} == {
        int.from_bytes(made.report.trace_id, "big")
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


def test_calls_stand_under_the_server_span_by_their_roles_and_with_their_times() -> None:
    calls = [
        copy_call("canary", "shadow", started_ns=5_000, duration_ns=700),
        copy_call("canary", "audit"),
        copy_call("stable", "noise"),
    ]
    made = observed_request(pair_result(started_ns=6_000, duration_ns=50), calls=calls)
    server, *below = request_spans(made, RESOURCE)
    assert server.kind is SpanKind.SERVER
    assert [each.kind for each in below] == [SpanKind.CLIENT] * 4 + [SpanKind.INTERNAL]
    assert server.context is not None
    assert {each.parent.span_id for each in below if each.parent} == {server.context.span_id}
    assert (below[1].start_time, below[1].end_time) == (5_000, 5_700)
    assert (below[-1].start_time, below[-1].end_time) == (6_000, 6_050)
    roles = [told(each).get(t.ROLE) for each in below]
    assert roles == ["primary", "shadow", "audit", "noise", None]


def test_each_attempt_has_a_span_with_its_own_status() -> None:
    made = report()
    made.attempts[0].status_code = 14
    made.attempts[0].status_message = "canary gone"
    made.attempts.add(span_id=b"attempt2", variant="stable", backend="blue", address="h:1")
    server, first, second = spans_of(made)
    assert (server.status.status_code, second.status.status_code) == (StatusCode.UNSET,) * 2
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "canary gone"
    assert told(first)[t.RPC_STATUS] == "UNAVAILABLE"


def names_of(chosen: str, *called: str) -> list[str]:
    """Return the names of the calls, all of which failed."""
    made = report(chosen=chosen)
    del made.attempts[:]
    for place, variant in enumerate(called):
        made.attempts.add(span_id=b"attempt%d" % place, variant=variant, status_code=14)
    return [each.name for each in spans_of(made)[1:]]


def test_each_call_is_named_after_what_it_was_made_for_and_no_two_alike() -> None:
    assert names_of("", "stable") == ["primary stable"]
    assert names_of("", "stable", "stable") == ["primary stable", "retry stable"]
    assert names_of("canary", "canary", "stable") == ["primary canary", "fallback stable"]
    assert names_of("canary", "stable") == ["fallback stable"], "canary was not ready"
    assert names_of("canary", "stable", "stable") == ["fallback stable", "retry stable"]


def test_siblings_have_names_of_their_own_and_the_request_its_method() -> None:
    calls = [
        copy_call("canary", "audit"),
        copy_call("stable", "noise"),
        copy_call("int8"),
        copy_call("broken"),
    ]
    what = [
        pair_result(mismatch(), "stable", "noise"),
        pair_result(mismatch(), "canary", "audit"),
        pair_result(MATCH, "int8"),
        pair_result(failed(), "broken"),
    ]
    server, *below = [
        each.name for each in request_spans(observed_request(*what, calls=calls), RESOURCE)
    ]
    assert server == "inference.GRPCInferenceService/ModelInfer"
    assert below == [
        "primary stable",
        *("audit canary", "noise stable", "shadow int8", "shadow broken"),
        *("compare stable: mismatch", "compare canary: mismatch"),
        *("compare int8: match", "compare broken: error"),
    ]


def test_a_span_ends_after_it_begins_though_nothing_took_time() -> None:
    made = report(duration_ns=0)
    made.attempts[0].duration_ns = 0
    spans = request_spans(ObservedRequest.of(made), RESOURCE)
    assert [(each.end_time or 0) - (each.start_time or 0) for each in spans] == [1, 1]


def test_what_failed_says_so_without_the_stores_own_mark() -> None:
    fine, broken = spans_of(report()), spans_of(report(status_code=13))
    assert [told(each).get(t.FAILED) for each in fine] == [None, None]
    assert [told(each).get(t.FAILED) for each in broken] == [True, True]


def test_the_request_says_how_long_it_took_itself() -> None:
    server, primary = spans_of(report(duration_ns=2_500_000))
    assert (told(server)[t.DURATION_MS], t.DURATION_MS in told(primary)) == (2.5, False)


@pytest.mark.parametrize("state", ["nonsense", "a=1,,=x", "a=\x01", ",".join(["k=v"] * 40)])
def test_a_tracestate_that_cant_be_read_is_left_out_without_a_line_in_the_log(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    spans = spans_of(report(tracestate=state))
    assert [len(each.context.trace_state) for each in spans if each.context] == [0, 0]
    assert caplog.messages == []


def test_a_fallback_names_who_was_chosen_and_each_call_its_variant() -> None:
    made = report(assignment=pb.ASSIGNMENT_FALLBACK, chosen="canary")
    made.attempts[0].variant = "canary"
    made.attempts[0].status_code = 14
    made.attempts.add(span_id=b"attempt2", variant="stable", backend="blue", address="h:1")
    server, first, second = map(told, spans_of(made))
    assert (server[t.ASSIGNMENT], server[t.CHOSEN]) == ("fallback", "canary")
    assert (server[t.VARIANT], first[t.VARIANT], second[t.VARIANT]) == (
        *("stable", "canary", "stable"),
    )


def test_a_request_that_was_turned_away_says_where_and_why_and_by_whom() -> None:
    made = report(variant="", status_code=8, turned_away="in_flight", origin_router=True)
    del made.attempts[:]
    (server,) = map(told, spans_of(made))
    assert (server[t.ROUTE], server[t.TURNED_AWAY]) == ("digits", "in_flight")
    assert (server[t.ORIGIN], server[t.REFUSED]) == ("router", True)
    assert t.VARIANT not in server


def test_an_error_that_the_router_made_after_a_call_is_no_refusal() -> None:
    server, _ = map(told, spans_of(report(status_code=14, origin_router=True)))
    assert (server[t.ORIGIN], server.get(t.REFUSED)) == ("router", None)


def test_a_request_of_no_route_says_only_what_the_caller_sent() -> None:
    made = report(route="", variant="", status_code=5, status_message="no route", model="nope")
    del made.attempts[:]
    (server,) = spans_of(made)
    assert set(told(server)) == {
        *(t.RPC_SYSTEM, t.RPC_METHOD, t.RPC_STATUS, t.FAILED, t.DURATION_MS, t.MODEL),
    }
    assert server.status.description == "no route"


def test_an_assignment_that_a_newer_proxy_knows_is_unspecified() -> None:
    assert told(spans_of(report(assignment=99))[0])[t.ASSIGNMENT] == "unspecified"


def test_a_request_that_can_not_be_read_has_no_id() -> None:
    assert t.REQUEST_ID not in told(spans_of(report(b"\xff\xff", b"", shadows=["canary"]))[0])


# ---------------------------------------------------------------- what was found


def test_the_requests_span_has_the_worst_outcome_of_each_candidate_but_of_no_noise() -> None:
    what = [
        pair_result(MATCH, "canary", "shadow"),
        pair_result(mismatch(), "canary", "audit"),
        pair_result(failed(), "int8"),
        pair_result(mismatch(), "stable", "noise"),
    ]
    server = told(request_spans(observed_request(*what), RESOURCE)[0])
    outcomes = {
        name.removeprefix(t.CANDIDATE_PREFIX): value
        for name, value in server.items()
        if name.startswith(t.CANDIDATE_PREFIX)
    }
    assert outcomes == {"canary": "mismatch", "int8": "error"}


def test_a_comparison_has_what_it_is_searched_by_on_its_own_span() -> None:
    both = pair_result(mismatch(difference("scores"), difference("logits")), noise=MATCH, trial=3)
    server, *_, compare = map(told, request_spans(observed_request(both), RESOURCE, segment="acme"))
    assert (server[t.SEGMENT], compare[t.SEGMENT]) == ("acme", "acme")
    assert compare[t.ROUTE] == "digits"
    assert (compare[t.COMPARE_REFERENCE_VERSION], compare[t.COMPARE_CANDIDATE_VERSION]) == (
        *("1", "2"),
    )
    assert (compare[t.TRIAL], compare[t.COMPARE_ROLE], compare[t.COMPARE_NOISE]) == (
        *(3, "shadow", "match"),
    )
    assert (compare[t.COMPARE_ROWS], compare[t.COMPARE_ROWS_MISMATCH]) == (1, 1)
    assert {f"{OUTPUT}scores", f"{OUTPUT}logits"} <= set(compare)


def test_a_route_without_segments_and_trials_says_nothing_of_them() -> None:
    compare = told(request_spans(observed_request(pair_result(trial=0)), RESOURCE)[-1])
    assert {t.SEGMENT, t.TRIAL, t.COMPARE_NOISE, t.COMPARE_KIND}.isdisjoint(compare)


@pytest.mark.parametrize("fields", [{}, {"shadows": ["canary"], "uncopied": "too_large"}])
def test_of_a_request_that_was_not_copied_no_segment_is_known(fields: dict[str, Any]) -> None:
    uncopied = ObservedRequest.of(report(**fields))
    assert t.SEGMENT not in told(request_spans(uncopied, RESOURCE, segment="(none)")[0])


def test_the_span_that_tipped_a_verdict_says_which_and_no_other_does() -> None:
    what = pair_result(mismatch())
    spans = request_spans(
        observed_request(what, pair_result(MATCH, "int8")),
        RESOURCE,
        verdicts={what.span_id: "fail"},
    )
    assert [told(each).get(t.TIPPED) for each in spans[-2:]] == ["fail", None]
    assert t.TIPPED not in told(spans[0])


@pytest.mark.parametrize(
    ("comparison", "status"),
    [
        (MATCH, StatusCode.UNSET),
        (mismatch(), StatusCode.UNSET),
        (failed(), StatusCode.UNSET),
        (Comparison("ignored"), StatusCode.UNSET),
        (Comparison("skipped", "status"), StatusCode.UNSET),
        (Comparison("skipped", "rule"), StatusCode.ERROR),
    ],
    ids=lambda each: getattr(each, "outcome", each),
)
def test_a_comparison_is_an_error_only_where_comparing_failed(
    comparison: Comparison, status: StatusCode
) -> None:
    assert (
        request_spans(observed_request(pair_result(comparison)), RESOURCE)[-1].status.status_code
        is status
    )


def test_a_copy_that_failed_is_an_error_with_its_own_words() -> None:
    answer = ComparedAnswer(code="UNAVAILABLE", message="gone fishing")
    spans = request_spans(
        observed_request(pair_result(failed()), calls=[copy_call(answer=answer)]), RESOURCE
    )
    shadow = next(each for each in spans if told(each).get(t.ROLE) == "shadow")
    assert shadow.status.status_code is StatusCode.ERROR
    assert shadow.status.description == "gone fishing"


# ---------------------------------------------------------------- bounds


def exported(spans: Sequence[ReadableSpan]) -> str:
    stream = StringIO()
    FileSpanExporter(stream=stream).export(spans)
    return stream.getvalue()


def ten_thousand() -> Comparison:
    """An answer with 10,000 outputs, all of which differ by values as long as they may be."""
    huge = Element((0,), "x" * 10_000, "y" * 10_000)
    names = [f"y{each}" + "n" * 5_000 for each in range(64)]
    differences = tuple(Difference(each, "value", (huge,) * 8) for each in names)
    outputs = tuple(OutputResult(f"y{each}", "mismatch") for each in range(10_000))
    return Comparison("mismatch", "value", differences, 10_000, outputs)


def test_ten_thousand_differing_outputs_make_a_small_span_that_tells_their_number() -> None:
    span = request_spans(observed_request(pair_result(ten_thousand())), RESOURCE)[-1]
    assert len(span.events) == EVENTS_MAX
    assert told(span)[t.COMPARE_OUTPUTS_DIFFERING] == 10_000
    assert len(told(span)) <= 64
    assert max(len(str(value)) for value in (span.events[0].attributes or {}).values()) == 2_048
    assert len(exported([span])) < 256 * 1024


def test_the_requests_span_is_small_whatever_the_number_of_candidates() -> None:
    made = observed_request(*(pair_result(candidate=f"v{each}") for each in range(200)), calls=[])
    assert len(told(request_spans(made, RESOURCE)[0])) <= 64


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_has_no_word_for_never_reach_it(value: float) -> None:
    what = mismatch(difference(max_abs_diff=value, score=value))
    text = exported(request_spans(observed_request(pair_result(what)), RESOURCE))
    assert text.count("\n") == 1
    assert "Infinity" not in text
    assert "NaN" not in text


def test_half_a_surrogate_pair_does_not_break_the_export_of_its_batch() -> None:
    odd = Difference("\ud800", "value", (Element((), "\udc00", "ok"),))
    (event,) = request_spans(observed_request(pair_result(mismatch(odd))), RESOURCE)[-1].events
    assert dict(event.attributes or {})["expected"] == "?"


# ---------------------------------------------------------------- the request


def test_an_exchange_keeps_its_bodies_apart_from_the_batch_it_came_in() -> None:
    request = b"\x00" * 500
    batch = pb.ReportBatch(reports=[report(request, b"answer", shadows=["canary"])])
    made = ObservedRequest.of(batch.reports[0])
    assert (made.request, made.response, made.waiting) == (request, b"answer", 1)
    assert not made.report.request_body
    assert batch.ByteSize() < 500
    batch.reports[0].route = "changed"
    assert made.report.route == "digits"


@pytest.mark.parametrize(
    "fields", [{"trace_id": b""}, {"span_id": b"x" * 9}, {"parent_span_id": b"short"}]
)
def test_a_report_with_ids_of_another_size_is_refused(fields: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match="16 bytes"):
        ObservedRequest.of(report(**fields))  # type: ignore[arg-type]  # fields of the message

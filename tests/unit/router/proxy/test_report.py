"""Reports, laid out by hand, read back by protobuf: every field, in any company."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.channels import COPY_BYTES_MAX
from coalmine_router.codes import REFUSALS
from coalmine_router.proxy.caller import Caller
from coalmine_router.proxy.copy_plan import CopyPlan
from coalmine_router.proxy.exchange import Exchange, begin_trace
from coalmine_router.proxy.forward import TIMEOUT_S_MAX, Attempt, Outcome
from coalmine_router.proxy.report import bodies_of, report_of, why_uncopied
from coalmine_router.proxy.routing import BoundVariant, Routing, routing_of
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant

METHOD = "inference.GRPCInferenceService/ModelInfer"
DIGITS = Match("digits-model")
PARENT = Parent(b"p" * 16, b"q" * 8, sampled=True)
OK = Outcome(grpc.StatusCode.OK, "", b"answer", (), ())
BROKE = Outcome(grpc.StatusCode.INTERNAL, "it broke", b"", (), ())
REFUSED = Outcome(grpc.StatusCode.INVALID_ARGUMENT, "no such input", b"", (), ())


@dataclass
class NamedBackend:
    """Of a variant's endpoints, reports name the backend alone."""

    backend: str


@dataclass
class NamedAddress:
    name: str


class BackendNames:
    def endpoints(self, route: str, variant: str) -> Any:
        return NamedBackend({"stable": "blue", "canary": "green"}[variant])


def routing(match: Match = DIGITS, revision: int = 7, *, fallback: bool = False) -> Routing:
    variants = (
        Variant("stable", "blue", weight_bp=9_000),
        Variant("canary", "green", weight_bp=1_000),
    )
    backends = (Backend("blue", ("b:1",)), Backend("green", ("g:1",)))
    route = Route("digits", match, variants, fallback=fallback)
    table = RouteTable(revision, backends, (route,))
    before = Routing(0, {}, {}, {}, None, table.limits)
    return routing_of(table, before, BackendNames(), random.Random(1).random)


@dataclass
class Way:
    """One request's way through a proxy, of which `exchange` is what was learnt."""

    parent: Parent | None = None
    tracestate: str = ""
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    request: bytes = b"asked"
    match: Match = DIGITS
    sampling_ratio: float = 0.0
    fallback: bool = False
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        caller = Caller(self.parent, self.tracestate, None, self.metadata)
        sampler = HeadSampler(self.sampling_ratio, parent_based=True)
        trace = begin_trace(caller, sampler, random.Random(1))
        self.exchange = Exchange(METHOD, self.request, caller, trace, wall_ns=1_000, began_ns=50)
        self.exchange.timeout_s = self.timeout_s

    def assigned(
        self, variant: str = "stable", reason: "pb.Assignment.ValueType" = pb.ASSIGNMENT_STICKY
    ) -> "Way":
        self.exchange.routed = routing(self.match, fallback=self.fallback).by_name["digits"]
        self.exchange.bound = self.bound(variant)
        self.exchange.reason = reason
        return self

    def bound(self, variant: str) -> BoundVariant:
        assert self.exchange.routed is not None
        return self.exchange.routed.variants[variant]

    def called(
        self,
        variant: str = "stable",
        *,
        address: str = "b:1",
        span_id: bytes = b"12345678",
        at: tuple[int, int] = (60, 160),
        code: int = 0,
        message: str = "",
    ) -> "Way":
        where: Any = NamedAddress(address)
        made = Attempt(self.bound(variant), where, span_id, at[0], 1.0, at[1], code, message)
        self.exchange.add_attempt(made)
        return self

    def shadowed(self, *shadows: str) -> "Way":
        self.exchange.copies = CopyPlan(shadows)
        return self

    def copied(self, *, audit: str = "", noise: bool = False) -> "Way":
        self.exchange.copies = CopyPlan((), audit, noise)
        return self

    def report(self, outcome: Outcome = OK, ended_ns: int = 250) -> pb.Report:
        data = report_of(self.exchange, outcome, ended_ns) + bodies_of(self.exchange, outcome)
        read = pb.Report.FromString(data)
        read.DiscardUnknownFields()
        assert read == pb.Report.FromString(data), "no field is unknown"
        return read


# ---------------------------------------------------------------- what a report says


def test_a_report_says_what_was_chosen_and_what_happened() -> None:
    report = Way(parent=PARENT, tracestate="a=1").assigned().called().report()
    assert (report.route, report.model, report.variant) == ("digits", "digits-model", "stable")
    assert (report.assignment, report.revision) == (pb.ASSIGNMENT_STICKY, 7)
    assert (report.weight_bp, report.chosen, report.chosen_by) == (9_000, "", 0)
    assert (report.trace_id, report.parent_span_id) == (PARENT.trace_id, PARENT.span_id)
    assert (report.sampled, report.tracestate, report.method) == (True, "a=1", METHOD)
    assert (report.request_bytes, report.response_bytes) == (5, 6)
    assert (report.status_code, report.status_message, report.origin_router) == (0, "", False)
    assert report.turned_away == ""


def test_without_a_caller_that_traces_there_is_no_parent() -> None:
    report = Way().assigned().called().report()
    assert (report.parent_span_id, report.tracestate, report.sampled) == (b"", "", False)
    assert (len(report.trace_id), len(report.span_id)) == (16, 8)
    assert Way(sampling_ratio=1.0).assigned().report().sampled


def test_times_of_the_calls_lie_within_those_of_the_request() -> None:
    report = Way().assigned().called(at=(60, 160)).report(ended_ns=250)
    [attempt] = report.attempts
    assert (report.started_ns, report.duration_ns) == (1_000, 200)
    assert (attempt.started_ns, attempt.duration_ns) == (1_010, 100)
    assert (attempt.variant, attempt.backend, attempt.address) == ("stable", "blue", "b:1")
    assert attempt.span_id == b"12345678"


def test_a_fallback_names_who_was_chosen_and_lists_both_attempts_in_order() -> None:
    way = Way().assigned("canary", pb.ASSIGNMENT_SPLIT)
    way.called("canary", address="g:1", code=14, message="is loading")
    way.exchange.fall_back_to_stable()
    report = way.called("stable", span_id=b"abcdefgh", at=(170, 240)).report()

    assert (report.variant, report.assignment) == ("stable", pb.ASSIGNMENT_FALLBACK)
    assert (report.chosen, report.chosen_by) == ("canary", pb.ASSIGNMENT_SPLIT)
    assert report.weight_bp == 1_000, "the share of who was assigned"
    assert [(each.variant, each.backend, each.address) for each in report.attempts] == [
        ("canary", "green", "g:1"),
        ("stable", "blue", "b:1"),
    ]
    assert [(each.status_code, each.status_message) for each in report.attempts] == [
        (14, "is loading"),
        (0, ""),
    ]
    assert [each.span_id for each in report.attempts] == [b"12345678", b"abcdefgh"]


def test_of_a_variant_that_was_not_ready_there_is_no_attempt() -> None:
    way = Way().assigned("canary", pb.ASSIGNMENT_STICKY)
    way.exchange.fall_back_to_stable()
    report = way.called("stable").report()
    assert (report.chosen, report.chosen_by) == ("canary", pb.ASSIGNMENT_STICKY)
    assert [each.variant for each in report.attempts] == ["stable"]


def test_where_stable_may_stand_in_the_report_says_how_much_time_the_request_had() -> None:
    assert Way(fallback=True).assigned().called().report().timeout_ns == 2 * 10**9
    assert Way(fallback=True, timeout_s=0.25).assigned().report().timeout_ns == 250_000_000
    assert Way().assigned().called().report().timeout_ns == 0, "nobody asks"


@pytest.mark.parametrize("timeout_s", [float("inf"), 0.0, -1.0])
def test_a_time_that_has_no_end_or_is_over_is_not_told(timeout_s: float) -> None:
    assert Way(fallback=True, timeout_s=timeout_s).assigned().report().timeout_ns == 0


def test_a_deadline_further_away_than_nanoseconds_can_say_is_told_as_the_longest_there_is() -> None:
    report = Way(fallback=True, timeout_s=99_999_999 * 3_600.0).assigned().report()
    assert report.timeout_ns == TIMEOUT_S_MAX * 1e9


def test_what_requests_have_in_common_is_told_apart_by_how_they_were_assigned() -> None:
    shared = routing().by_name["digits"]
    for reason in (pb.ASSIGNMENT_SPLIT, pb.ASSIGNMENT_PINNED, pb.ASSIGNMENT_SPLIT):
        for name, address in (("stable", "b:1"), ("canary", "g:1"), ("stable", "b:2")):
            way = Way()
            way.exchange.routed, way.exchange.bound = shared, shared.variants[name]
            way.exchange.reason = reason
            report = way.called(name, address=address).report()
            assert (report.variant, report.assignment) == (name, reason)
            assert [each.address for each in report.attempts] == [address]


def test_what_requests_have_in_common_is_told_apart_by_their_method() -> None:
    shared = routing().by_name["digits"]
    for method in (METHOD, f"{METHOD}s", METHOD):
        way = Way()
        way.exchange.routed, way.exchange.bound = shared, shared.stable
        way.exchange.method = method
        assert way.report().method == method


def test_methods_that_callers_make_up_are_not_remembered_for_ever() -> None:
    shared = routing(Match(service="shop.Cart")).by_name["digits"]
    for number in range(3_000):
        way = Way()
        way.exchange.routed, way.exchange.bound = shared, shared.stable
        way.exchange.method = f"shop.Cart/{number}"
        assert way.report().method == f"shop.Cart/{number}"
    assert len(shared.stable.assigned_fields) <= 1_024


def test_of_a_request_that_could_not_be_called_nothing_sticks_to_the_next() -> None:
    shared = routing().by_name["digits"]
    for reason in ("", "not_ready", ""):
        way = Way()
        way.exchange.routed, way.exchange.bound = shared, shared.stable
        way.exchange.turned_away = reason
        assert way.report().turned_away == reason


def test_addresses_that_come_and_go_are_not_remembered_for_ever() -> None:
    shared = routing().by_name["digits"]
    for number in range(3_000):
        way = Way()
        way.exchange.routed, way.exchange.bound = shared, shared.stable
        report = way.called(address=f"10.0.{number >> 8}.{number & 255}:1").report()
        assert report.attempts[0].address.endswith(f".{number & 255}:1")
    assert len(shared.stable.attempt_fields) <= 1_024


def test_a_request_that_was_turned_away_says_why_and_was_no_ones() -> None:
    way = Way()
    way.exchange.routed = routing().by_name["digits"]
    way.exchange.turned_away = "in_flight"
    full = Outcome(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", b"", (), (), here=True)
    report = way.report(full)
    assert (report.turned_away, report.route, report.revision) == ("in_flight", "digits", 7)
    assert (report.variant, report.assignment, list(report.attempts)) == ("", 0, [])
    assert (report.status_code, report.status_message) == (8, "full")
    assert report.origin_router


def test_a_request_that_no_route_matched_is_reported_without_one() -> None:
    refused = Outcome(grpc.StatusCode.NOT_FOUND, "no route", b"", (), (), here=True)
    report = Way().report(refused)
    assert (report.route, report.model, report.revision) == ("", "", 0)
    assert (report.method, report.request_bytes) == (METHOD, 5)
    assert (report.status_code, report.origin_router) == (5, True)


def test_on_a_default_route_the_model_is_the_callers() -> None:
    way = Way(match=Match(is_default=True)).assigned().called()
    way.exchange.model = "faces"
    assert way.report().model == "faces"
    assert Way(match=Match(is_default=True)).assigned().report().model == ""


def test_a_model_name_that_a_caller_made_up_is_cut() -> None:
    way = Way(match=Match(is_default=True)).assigned().called()
    way.exchange.model = "ä" * 1_000_000
    assert way.report().model == "ä" * 128


def test_requests_of_another_service_have_no_model() -> None:
    way = Way(match=Match(service="shop.Cart")).assigned().called()
    way.exchange.method = "shop.Cart/Add"
    report = way.report()
    assert (report.route, report.method, report.model) == ("digits", "shop.Cart/Add", "")


# ---------------------------------------------------------------- errors, and their texts


def test_an_error_of_the_backend_is_not_the_routers() -> None:
    report = Way().assigned().called(code=13, message="it broke").report(BROKE)
    assert (report.status_code, report.status_message) == (13, "it broke")
    assert not report.origin_router
    assert report.response_bytes == 0


@pytest.mark.parametrize("text", ["Prüfung fehlgeschlagen", "数字", "a\0b\r\n", "😀" * 10])
def test_texts_of_any_characters_come_back_as_they_were(text: str) -> None:
    outcome = Outcome(grpc.StatusCode.ABORTED, text, b"", (), ())
    report = Way(tracestate=text).assigned().called(code=10, message=text).report(outcome)
    assert report.status_message == report.tracestate == text
    assert report.attempts[0].status_message == text


def test_a_long_message_is_cut_and_so_is_that_of_its_attempt() -> None:
    long = "ü" * 100_000
    outcome = Outcome(grpc.StatusCode.INTERNAL, long, b"", (), ())
    report = Way().assigned().called(code=13, message=long).report(outcome)
    assert report.status_message == "ü" * 2_048
    assert report.attempts[0].status_message == "ü" * 2_048


# ---------------------------------------------------------------- bodies


def test_without_shadows_no_body_is_reported() -> None:
    way = Way(request=bytes(1_000_000), metadata=[("x-user", "ann")]).assigned().called()
    assert bodies_of(way.exchange, OK) == b""
    assert len(report_of(way.exchange, OK, 250)) < 500
    assert way.report().request_bytes == 1_000_000


def test_a_request_that_shadows_want_carries_bodies_and_metadata() -> None:
    way = Way(metadata=[("x-user", "ann"), ("x-user", "bob"), ("k-bin", b"\xff")])
    report = way.assigned().called().shadowed("int8", "canary").report()
    assert (report.request_body, report.response_body) == (b"asked", b"answer")
    assert [(each.key, each.value) for each in report.metadata] == [
        ("x-user", b"ann"),
        ("x-user", b"bob"),
        ("k-bin", b"\xff"),
    ]
    assert list(report.shadows) == ["int8", "canary"]
    assert report.uncopied == ""


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (BROKE, "primary_failed"),
        (Outcome(grpc.StatusCode.OK, "", bytes(COPY_BYTES_MAX - 4), (), ()), "too_large"),
        (Outcome(grpc.StatusCode.OK, "", bytes(COPY_BYTES_MAX - 5), (), ()), ""),
    ],
)
def test_a_drawn_request_without_bodies_says_why(outcome: Outcome, why: str) -> None:
    way = Way().assigned().called().shadowed("int8")
    assert why_uncopied(way.exchange, outcome) == why
    assert report_bodies(way.report(outcome)) == (why == "")
    assert way.report(outcome).uncopied == why
    assert list(way.report(outcome).shadows) == ["int8"]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (REFUSED, ""),
        (replace(REFUSED, here=True), "primary_failed"),
        (replace(REFUSED, code=grpc.StatusCode.RESOURCE_EXHAUSTED), "primary_failed"),
    ],
)
def test_what_a_variant_refused_is_copied_and_what_failed_otherwise_is_not(
    outcome: Outcome, why: str
) -> None:
    report = Way().assigned().called().shadowed("int8").report(outcome)
    assert report.uncopied == why
    assert report.request_body == (b"" if why else b"asked")
    assert report.response_body == b""


def test_audit_and_noise_bring_the_bodies_too() -> None:
    audited = Way().assigned("canary").called("canary").copied(audit="stable").report()
    assert (audited.audit, audited.noise, list(audited.shadows)) == ("stable", False, [])
    assert report_bodies(audited)
    noisy = Way().assigned().called().copied(noise=True).report()
    assert (noisy.audit, noisy.noise) == ("", True)
    assert report_bodies(noisy)


def test_a_report_of_the_split_says_all_its_weights() -> None:
    split = Way().assigned("canary", pb.ASSIGNMENT_SPLIT).called("canary").report()
    assert dict(split.split_bp) == {"stable": 9_000, "canary": 1_000}
    assert not Way().assigned("canary").called("canary").report().split_bp, "sticky"


def report_bodies(report: pb.Report) -> bool:
    assert bool(report.request_body) == bool(report.response_body)
    return bool(report.request_body)


# ---------------------------------------------------------------- of any request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
COUNT = st.integers(0, 2**62)
BYTES = st.binary(max_size=300)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stable", "canary"]),
        TEXT,
        st.binary(min_size=8, max_size=8),
        COUNT,
        COUNT,
        st.integers(0, 16),
        TEXT,
    ),
    max_size=2,
)


@given(
    parent=st.none()
    | st.builds(
        Parent,
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=8, max_size=8),
        sampled=st.booleans(),
    ),
    texts=st.tuples(TEXT, TEXT, TEXT),
    request=BYTES,
    steps=STEPS,
    shadows=st.lists(st.text("abc", min_size=1), max_size=3),
    code=st.sampled_from(list(grpc.StatusCode)),
    here=st.booleans(),
    lasted=COUNT,
    timeout=st.none() | st.integers(1, 30 * 10**15),
)
def test_whatever_happened_is_read_back_as_it_was(
    parent: Parent | None,
    texts: tuple[str, str, str],
    request: bytes,
    steps: list[tuple[str, str, bytes, int, int, int, str]],
    shadows: list[str],
    code: grpc.StatusCode,
    here: bool,
    lasted: int,
    timeout: int | None,
) -> None:
    tracestate, message, value = texts
    way = Way(parent, tracestate, [("x-a", value), ("x-bin", request)], request)
    way.fallback, way.exchange.timeout_s = timeout is not None, (timeout or 1) / 1e9
    way.assigned()
    for variant, address, span_id, after, took, status, said in steps:
        at = (50 + after, 50 + after + took)
        way.called(variant, address=address, span_id=span_id, at=at, code=status, message=said)
    is_ok = code is grpc.StatusCode.OK
    body = request[::-1] if is_ok else b""
    outcome = Outcome(code, "" if is_ok else message, body, (), (), here=here and not is_ok)

    report = way.shadowed(*shadows).report(outcome, 50 + lasted)

    trace = way.exchange.trace
    is_copied = bool(shadows) and (is_ok or (code.name in REFUSALS and not outcome.here))
    expected = pb.Report(
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_span_id=parent.span_id if parent else b"",
        sampled=trace.sampled,
        tracestate=tracestate,
        route="digits",
        variant="stable",
        assignment=pb.ASSIGNMENT_STICKY,
        revision=7,
        weight_bp=9_000,
        method=METHOD,
        model="digits-model",
        started_ns=1_000,
        duration_ns=lasted,
        status_code=code.value[0],
        status_message=outcome.message,
        origin_router=outcome.here,
        request_bytes=len(request),
        response_bytes=len(body),
        timeout_ns=int(way.exchange.timeout_s * 1e9) if timeout else 0,
        shadows=shadows,
        uncopied="primary_failed" if shadows and not is_copied else "",
        request_body=request if is_copied else b"",
        response_body=body if is_copied else b"",
    )
    if is_copied:
        expected.metadata.add(key="x-a", value=value.encode())
        expected.metadata.add(key="x-bin", value=request)
    for variant, address, span_id, after, took, status, said in steps:
        expected.attempts.add(
            span_id=span_id,
            variant=variant,
            backend={"stable": "blue", "canary": "green"}[variant],
            address=address,
            started_ns=1_000 + after,
            duration_ns=took,
            status_code=status,
            status_message=said,
        )
    assert report == expected

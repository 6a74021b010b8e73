"""What a report says of the split."""

from typing import Any

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.split import SplitEvent, split_events

SPLIT = {"stable": 9_000, "canary": 1_000}
UNAVAILABLE, INVALID, INTERNAL, EXHAUSTED, CANCELLED, DEADLINE = 14, 3, 13, 8, 1, 4


def report(variant: str = "stable", *, code: int = 0, took_ms: int = 5, **parts: Any) -> pb.Report:
    call = pb.Attempt(variant=variant, duration_ns=took_ms * 10**6, status_code=code)
    given: dict[str, Any] = {
        "variant": variant,
        "assignment": pb.ASSIGNMENT_SPLIT,
        "split_bp": SPLIT,
        "status_code": code,
        "method": "inference.GRPCInferenceService/ModelInfer",
        "attempts": [call],
        **parts,
    }
    return pb.Report(**given)


def events(of: pb.Report, slow_over_ms: int | None = None) -> list[SplitEvent]:
    return list(split_events(of, slow_over_ms and slow_over_ms * 10**6))


def only(of: pb.Report, slow_over_ms: int | None = None) -> SplitEvent:
    [found] = events(of, slow_over_ms)
    return found


def test_a_request_of_stables_is_an_event_of_the_candidate_beside_it() -> None:
    assert only(report("stable")) == SplitEvent("canary", (1_000, 9_000), False, False, False)


def test_a_request_of_the_candidates_is_its_own() -> None:
    assert only(report("canary")) == SplitEvent("canary", (1_000, 9_000), True, False, False)


def test_stables_request_says_something_of_every_candidate_and_theirs_of_themselves() -> None:
    split = {"stable": 8_000, "canary": 1_000, "int8": 1_000}
    assert {each.candidate for each in events(report("stable", split_bp=split))} == {
        "canary",
        "int8",
    }
    assert only(report("int8", split_bp=split)).weights_bp == (1_000, 8_000)


@pytest.mark.parametrize("why", [pb.ASSIGNMENT_PINNED, pb.ASSIGNMENT_STICKY])
def test_what_chance_did_not_assign_says_nothing(why: "pb.Assignment.ValueType") -> None:
    assert events(report("canary", assignment=why)) == []


def test_without_stable_in_the_split_there_is_nobody_to_compare_with() -> None:
    assert events(report("canary", split_bp={"canary": 10_000})) == []


@pytest.mark.parametrize(
    ("code", "is_error"),
    [
        (UNAVAILABLE, True),
        (INTERNAL, True),
        (DEADLINE, True),
        (INVALID, False),
        (EXHAUSTED, False),
        (CANCELLED, False),
        (99, True),
    ],
)
def test_the_models_errors_are_told_from_the_callers_and_from_shedding(
    code: int, is_error: bool
) -> None:
    assert only(report("canary", code=code)).is_error is is_error


def test_a_request_that_fell_back_is_charged_to_who_was_assigned() -> None:
    failed = pb.Attempt(variant="canary", status_code=UNAVAILABLE, duration_ns=9 * 10**6)
    made_good = pb.Attempt(variant="stable")
    fell_back = report(
        "stable",
        assignment=pb.ASSIGNMENT_FALLBACK,
        chosen="canary",
        chosen_by=pb.ASSIGNMENT_SPLIT,
        attempts=[failed, made_good],
    )
    assert only(fell_back, 8) == SplitEvent("canary", (1_000, 9_000), True, True, True)


def test_who_could_not_be_called_is_assigned_the_request_and_charged_with_nothing() -> None:
    not_ready = report(
        "stable",
        assignment=pb.ASSIGNMENT_FALLBACK,
        chosen="canary",
        chosen_by=pb.ASSIGNMENT_SPLIT,
        took_ms=50,
    )
    assert only(not_ready, 8) == SplitEvent("canary", (1_000, 9_000), True, False, False)


def test_what_stable_fails_in_the_place_of_who_was_not_ready_is_no_error_of_either() -> None:
    not_ready = report(
        "stable",
        code=UNAVAILABLE,
        assignment=pb.ASSIGNMENT_FALLBACK,
        chosen="canary",
        chosen_by=pb.ASSIGNMENT_SPLIT,
    )
    assert only(not_ready) == SplitEvent("canary", (1_000, 9_000), True, False, False)


def test_stables_second_chance_does_not_hide_its_first_failure() -> None:
    failed = pb.Attempt(variant="stable", status_code=UNAVAILABLE)
    again = report("stable", attempts=[failed, pb.Attempt(variant="stable")])
    assert only(again).is_error


@pytest.mark.parametrize("code", [3, 5, 7, 8, 9, 11, 16])
def test_what_a_backend_refuses_is_a_refusal_and_no_error(code: int) -> None:
    refused = only(report("canary", code=code))
    assert (refused.is_refusal, refused.is_error) == (True, False)
    assert only(report("stable", code=code)).is_refusal


@pytest.mark.parametrize("code", [0, 1, 2, 4, 13, 14])
def test_nothing_else_is_a_refusal(code: int) -> None:
    assert not only(report("canary", code=code)).is_refusal


def test_slow_is_what_takes_longer_than_the_threshold() -> None:
    assert only(report("canary", took_ms=9), 8).is_slow
    assert not only(report("canary", took_ms=8), 8).is_slow
    assert not only(report("canary", took_ms=9)).is_slow, "the route has no threshold"


def test_a_stream_is_never_slow() -> None:
    stream = report(
        "canary", took_ms=9_000, method="inference.GRPCInferenceService/ModelStreamInfer"
    )
    assert not only(stream, 8).is_slow


def test_a_request_that_the_router_refused_before_any_call_is_no_error_and_no_slow_one() -> None:
    refused = report("stable", code=UNAVAILABLE, attempts=[])
    assert only(refused, 1) == SplitEvent("canary", (1_000, 9_000), False, False, False)


# ---------------------------------------------------------------- where stable stands in


@pytest.mark.parametrize("variant", ["stable", "canary"])
@pytest.mark.parametrize("code", [0, INVALID, CANCELLED, DEADLINE])
def test_a_call_that_took_more_than_half_of_the_time_is_an_error_whoever_was_called(
    variant: str, code: int
) -> None:
    assert only(report(variant, code=code, took_ms=51, timeout_ns=100 * 10**6)).is_error


@pytest.mark.parametrize("variant", ["stable", "canary"])
def test_a_call_that_took_half_of_the_time_or_less_is_judged_by_its_status(variant: str) -> None:
    assert not only(report(variant, took_ms=50, timeout_ns=100 * 10**6)).is_error
    assert only(report(variant, code=DEADLINE, took_ms=50, timeout_ns=100 * 10**6)).is_error


def test_where_no_time_is_told_no_call_is_late() -> None:
    assert not only(report("stable", took_ms=60_000)).is_error


def test_of_a_request_that_fell_back_only_the_first_call_may_be_late() -> None:
    failed = pb.Attempt(variant="canary", status_code=INVALID, duration_ns=10**6)
    long = pb.Attempt(variant="stable", duration_ns=90 * 10**6)
    fell_back = report(
        "stable",
        assignment=pb.ASSIGNMENT_FALLBACK,
        chosen="canary",
        chosen_by=pb.ASSIGNMENT_SPLIT,
        attempts=[failed, long],
        timeout_ns=100 * 10**6,
    )
    assert not only(fell_back).is_error


def test_a_stream_is_never_late() -> None:
    stream = report(
        "canary",
        took_ms=9_000,
        method="inference.GRPCInferenceService/ModelStreamInfer",
        timeout_ns=100 * 10**6,
    )
    assert not only(stream).is_error

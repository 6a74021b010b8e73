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


def test_who_was_not_ready_is_charged_without_a_call() -> None:
    not_ready = report(
        "stable",
        assignment=pb.ASSIGNMENT_FALLBACK,
        chosen="canary",
        chosen_by=pb.ASSIGNMENT_SPLIT,
        took_ms=50,
    )
    assert only(not_ready, 8) == SplitEvent("canary", (1_000, 9_000), True, True, False)


def test_stables_second_chance_does_not_hide_its_first_failure() -> None:
    failed = pb.Attempt(variant="stable", status_code=UNAVAILABLE)
    again = report("stable", attempts=[failed, pb.Attempt(variant="stable")])
    assert only(again).is_error


def test_slow_is_what_takes_longer_than_the_threshold() -> None:
    assert only(report("canary", took_ms=9), 8).is_slow
    assert not only(report("canary", took_ms=8), 8).is_slow
    assert not only(report("canary", took_ms=9)).is_slow, "the route has no threshold"


def test_a_stream_is_never_slow() -> None:
    stream = report(
        "canary", took_ms=9_000, method="inference.GRPCInferenceService/ModelStreamInfer"
    )
    assert not only(stream, 8).is_slow


def test_a_request_that_the_router_refused_before_any_call_is_no_slow_one() -> None:
    refused = report("stable", code=UNAVAILABLE, attempts=[])
    assert only(refused, 1) == SplitEvent("canary", (1_000, 9_000), False, True, False)

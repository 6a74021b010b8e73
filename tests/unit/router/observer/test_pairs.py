"""Which answers of a request are compared with which."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest, Role
from coalmine_router.observer.pairs import PlannedPair, answers_of, pairs_of


def observed_request(answered: str, *copies: tuple[Role, str]) -> ObservedRequest:
    calls = [
        CopyCall(
            Copy(role, variant), "b", "b:1", b"12345678", 1, 1, ComparedAnswer(variant.encode())
        )
        for role, variant in copies
    ]
    return ObservedRequest(pb.Report(variant=answered), b"asked", b"given", 0, calls)


def test_a_shadow_is_compared_with_who_answered() -> None:
    assert pairs_of(observed_request("canary", ("shadow", "int8"))) == [
        PlannedPair("shadow", "canary", "int8", (0, 1))
    ]


def test_an_audit_has_stable_for_its_reference_whoever_the_caller_got() -> None:
    assert pairs_of(observed_request("stable", ("audit", "canary"))) == [
        PlannedPair("audit", "stable", "canary", (0, 1))
    ]
    assert pairs_of(observed_request("canary", ("audit", "stable"))) == [
        PlannedPair("audit", "stable", "canary", (1, 0))
    ]


def test_noise_comes_first_and_goes_beside_all_that_stable_is_compared_with() -> None:
    found = pairs_of(
        observed_request("stable", ("shadow", "int8"), ("audit", "canary"), ("noise", "stable"))
    )
    assert found == [
        PlannedPair("noise", "stable", "stable", (0, 3)),
        PlannedPair("shadow", "stable", "int8", (0, 1), has_noise=True),
        PlannedPair("audit", "stable", "canary", (0, 2), has_noise=True),
    ]


def test_a_copy_that_did_not_come_back_is_compared_with_nothing() -> None:
    assert pairs_of(observed_request("stable")) == []


def test_the_answer_that_the_caller_got_comes_first() -> None:
    of = observed_request("stable", ("shadow", "int8"))
    assert answers_of(of) == (ComparedAnswer(b"given"), ComparedAnswer(b"int8"))
    of.report.status_code, of.report.status_message = 3, "no such input"
    of.response = b""
    assert answers_of(of)[0] == ComparedAnswer(b"", "INVALID_ARGUMENT", "no such input")

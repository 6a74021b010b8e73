"""Which requests are never copied, and why."""

from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.inference import inference_pb2 as oip
from coalmine_router.codes import REFUSALS
from coalmine_router.observer.copies.refusal import refusal
from coalmine_router.table import Match, Route, Variant
from tests.doubles.oip_backend import request_body
from tests.doubles.reports import report

REQUEST = request_body("digits", pixels=np.zeros((1, 4), np.float32))
VARIANTS = (Variant("stable", "blue", weight_bp=10_000), Variant("canary", "green"))
ROUTE = Route("digits", Match("digits"), VARIANTS)
OTHER = Route("books", Match(service="a.Books"), VARIANTS, copy_methods=("Find",))


def with_parameter(**choice: Any) -> bytes:
    request = oip.ModelInferRequest.FromString(REQUEST)
    request.parameters["sequence_id"].CopyFrom(oip.InferParameter(**choice))
    return request.SerializeToString()


def number_of(code: str) -> int:
    return int(grpc.StatusCode[code].value[0])


def test_an_ordinary_request_is_copied() -> None:
    assert refusal(report(), REQUEST, ROUTE) == ""


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"int64_param": 7}, "stateful"),
        ({"uint64_param": 7}, "stateful"),
        ({"string_param": "session-1"}, "stateful"),
        ({"int64_param": 0}, ""),
        ({"uint64_param": 0}, ""),
        ({"string_param": ""}, ""),
    ],
    ids=str,
)
def test_a_request_of_a_sequence_is_not_copied(choice: dict[str, Any], reason: str) -> None:
    assert refusal(report(), with_parameter(**choice), ROUTE) == reason


def test_a_request_that_can_not_be_read_may_be_of_a_sequence() -> None:
    assert refusal(report(), b"\xff\xff", ROUTE) == "unreadable"


def test_of_a_stateful_route_nothing_is_copied() -> None:
    route = Route("digits", Match("digits"), VARIANTS, stateful=True)
    assert refusal(report(), REQUEST, route) == "stateful"


@pytest.mark.parametrize(
    ("method", "route", "reason"),
    [
        ("inference.GRPCInferenceService/ModelReady", ROUTE, "not_comparable"),
        ("inference.GRPCInferenceService/RepositoryModelLoad", ROUTE, "not_comparable"),
        ("a.Books/Find", OTHER, ""),
        ("a.Books/Buy", OTHER, "not_comparable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_methods_off_the_list_are_not_copied(method: str, route: Route, reason: str) -> None:
    assert refusal(report(method=method), b"any bytes", route) == (
        reason if route is OTHER or reason else "unreadable"
    )


@pytest.mark.parametrize("code", [each.name for each in grpc.StatusCode])
def test_where_the_primary_failed_a_copy_is_made_of_refusals_alone(code: str) -> None:
    expected = "" if code in {"OK", *REFUSALS} else "primary_failed"
    assert refusal(report(status_code=number_of(code)), REQUEST, ROUTE) == expected


def test_a_refusal_of_the_routers_own_is_nothing_to_compare_with() -> None:
    code = number_of("NOT_FOUND")
    assert refusal(report(status_code=code, origin_router=True), REQUEST, ROUTE) == "primary_failed"


def test_what_the_proxy_said_comes_first() -> None:
    assert refusal(report(uncopied="too_large"), b"", ROUTE) == "too_large"

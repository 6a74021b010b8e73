"""Whose fault a status is."""

import grpc
import pytest

from coalmine_router.codes import NOT_THE_MODELS, REFUSALS, is_charged_to_model

CODES = [code.name for code in grpc.StatusCode]


def test_only_real_codes_are_named() -> None:
    assert set(CODES) >= REFUSALS | NOT_THE_MODELS


@pytest.mark.parametrize("code", CODES)
def test_what_the_caller_did_wrong_and_shedding_is_not_the_models(code: str) -> None:
    spared = {"OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
    spared |= {"RESOURCE_EXHAUSTED", "UNAUTHENTICATED"}
    assert is_charged_to_model(code) is (code not in spared)


def test_a_code_that_nobody_knows_is_charged() -> None:
    assert is_charged_to_model("UNKNOWN")
    assert is_charged_to_model("code 99")


def test_a_backend_that_is_out_of_reach_refuses_nothing() -> None:
    assert REFUSALS.isdisjoint({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"})

"""Calls that tritonclient gives up: async_infer with callbacks, and tasks of its asyncio client."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]


@pytest.fixture(scope="module", params=["cancel", "cancel_aio"])
def told(address: str, request: pytest.FixtureRequest) -> Told:
    caller = f"tests.conformance.callers.{request.param}"
    answer: Told = told_by(caller, address)
    return answer


def test_a_call_cancelled_while_it_waits_ends_as_cancelled(told: Told) -> None:
    assert told["waiting"]["status"] == "StatusCode.CANCELLED"


def test_a_call_cancelled_while_it_runs_ends_as_cancelled(told: Told) -> None:
    assert told["running"]["status"] == "StatusCode.CANCELLED"


def test_a_call_cancelled_beside_them_disturbs_no_other(told: Told) -> None:
    assert told["begun"] == ["begun", 4e5]
    assert told["neighbour"] == ["neighbour", 2.0]
    assert told["behind"] == ["behind", 5.0]


def test_a_request_whose_own_timeout_passes_in_the_queue_never_runs(told: Told) -> None:
    assert told["out_of_time"]["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert (
        "model 'slow' version 1: the deadline passed in the queue"
        in (told["out_of_time"]["message"])
    )


def test_each_of_many_calls_gets_its_own_answer(told: Told) -> None:
    assert told["many"] == {f"many-{each}": [f"many-{each}", float(each)] for each in range(20)}

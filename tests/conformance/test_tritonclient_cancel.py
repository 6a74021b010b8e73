"""Calls that tritonclient gives up: async_infer with callbacks, and tasks of its asyncio client."""

import pytest

from tests.doubles.server_process import Output, output_of


@pytest.fixture(scope="module", params=["cancel", "cancel_aio"])
def output(address: str, request: pytest.FixtureRequest) -> Output:
    caller = f"tests.conformance.callers.{request.param}"
    return output_of(caller, address)


def test_a_call_cancelled_while_it_waits_ends_as_cancelled(output: Output) -> None:
    assert output["waiting"]["status"] == "StatusCode.CANCELLED"


def test_a_call_cancelled_while_it_runs_ends_as_cancelled(output: Output) -> None:
    assert output["running"]["status"] == "StatusCode.CANCELLED"


def test_a_call_cancelled_beside_them_disturbs_no_other(output: Output) -> None:
    assert output["begun"] == ["begun", 4e5]
    assert output["neighbour"] == ["neighbour", 2.0]
    assert output["behind"] == ["behind", 5.0]


def test_a_request_whose_own_timeout_passes_in_the_queue_never_runs(output: Output) -> None:
    assert output["out_of_time"]["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert (
        "model 'slow' version 1: the deadline passed in the queue"
        in (output["out_of_time"]["message"])
    )


def test_each_of_many_calls_gets_its_own_answer(output: Output) -> None:
    assert output["many"] == {f"many-{each}": [f"many-{each}", float(each)] for each in range(20)}

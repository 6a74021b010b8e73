"""ModelStreamInfer as tritonclient calls it: order, errors, ends; sync and asyncio."""

from pathlib import Path

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of, server_of

IN_ORDER = [["slow", 1e5], *([f"r-{each}", float(each)] for each in range(100))]


@pytest.fixture(scope="module")
def sync(server: Started) -> Output:
    return output_of("tests.conformance.callers.stream", server.address("grpc"))


@pytest.fixture(scope="module")
def aio(server: Started) -> Output:
    return output_of("tests.conformance.callers.stream_aio", server.address("grpc"))


def test_responses_come_in_the_order_of_the_requests(sync: Output, aio: Output) -> None:
    assert sync["in_order"] == IN_ORDER
    assert aio["in_order"] == IN_ORDER


def test_a_compressed_stream_is_answered_like_any_other(sync: Output) -> None:
    assert sync["compressed"] == IN_ORDER


def test_a_response_can_be_waited_for_before_the_next_request(aio: Output) -> None:
    assert aio["in_turn"] == [2, 4, 8, 16, 32]


def test_an_error_is_that_of_its_request_and_the_stream_goes_on(sync: Output, aio: Output) -> None:
    good, small, nobody, raises, again = sync["errors"]
    assert (good, again) == ("good", "good again")
    assert "expects FP32 [-1, 64], got FP32 [1, 63]" in small["message"]
    assert nobody == {"status": None, "message": "model 'nobody' is unknown"}
    assert "negative pixel" in raises["message"]
    assert aio["errors"] == ["good", nobody, "good again"]


def test_each_response_is_the_last_to_its_request(sync: Output) -> None:
    is_final = {"triton_final_response": {"bool_param": True}}
    assert sync["final"] == [[1, is_final], [1, is_final]]


def test_a_cancelled_stream_ends_as_cancelled(sync: Output, aio: Output) -> None:
    (error,) = sync["cancelled"]
    assert error["status"] == "StatusCode.CANCELLED"
    assert aio["cancelled"] == ["quick", "CANCELLED"]


def test_a_stream_out_of_time_ends_as_such(sync: Output) -> None:
    assert sync["out_of_time"][-1]["status"] == "StatusCode.DEADLINE_EXCEEDED"


def test_a_stream_that_was_given_up_leaves_the_next_one_unharmed(sync: Output, aio: Output) -> None:
    assert sync["after"] == aio["after"] == IN_ORDER


def test_bytes_that_are_no_message_are_an_error_within_the_stream(sync: Output) -> None:
    first, error, last = sync["malformed"]
    assert (first, last) == ("good", "good")
    assert "malformed message" in error


def test_a_server_that_ends_answers_what_is_in_flight_and_then_ends_the_stream(
    repository: Path, tmp_path: Path
) -> None:
    with server_of(repository, tmp_path) as server:
        caller = "tests.conformance.callers.stream_end"
        output = output_of(caller, server.address("grpc"), str(server.pid))
        assert server.process.wait(10) == 0, "an open stream does not use up the grace of 30 s"
    assert (output["before"], output["in_flight"]) == ("before", "in flight")
    assert output["end"]["status"] == "StatusCode.UNAVAILABLE"
    assert "draining" in output["end"]["message"]

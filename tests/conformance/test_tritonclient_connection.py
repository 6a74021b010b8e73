"""Keepalive, message sizes and compression as tritonclient asks for them, sync and asyncio."""

import pytest

from tests.doubles.server_process import Output, output_of

ANSWER = [64.0 * i for i in range(10)]
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(address: str, request: pytest.FixtureRequest) -> Output:
    caller = "tests.conformance.callers.connection"
    return output_of(caller, request.param, address)


def test_a_client_with_keepalive_options_is_answered(output: Output) -> None:
    assert output["pinged"] == output["still"] == ANSWER


def test_a_message_within_the_limit_goes_there_and_back(output: Output) -> None:
    assert output["large"] == {"bytes": 40 * MIB, "right": True}


def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(output: Output) -> None:
    assert output["too_large"]["status"] == "StatusCode.RESOURCE_EXHAUSTED"
    assert output["still"] == ANSWER


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_answered_like_any_other(output: Output, algorithm: str) -> None:
    assert output[algorithm] == ANSWER


def test_a_large_compressed_request_is_read_whole(output: Output) -> None:
    assert output["gzip_large"] == {"bytes": 8 * MIB, "right": True}

"""Keepalive, message sizes and compression as tritonclient asks for them, sync and asyncio."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]

ANSWER = [64.0 * i for i in range(10)]
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["sync", "aio"])
def told(address: str, request: pytest.FixtureRequest) -> Told:
    caller = "tests.conformance.callers.connection"
    answer: Told = told_by(caller, request.param, address)
    return answer


def test_a_client_with_keepalive_options_is_answered(told: Told) -> None:
    assert told["pinged"] == told["still"] == ANSWER


def test_a_message_within_the_limit_goes_there_and_back(told: Told) -> None:
    assert told["large"] == {"bytes": 40 * MIB, "right": True}


def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(told: Told) -> None:
    assert told["too_large"]["status"] == "StatusCode.RESOURCE_EXHAUSTED"
    assert told["still"] == ANSWER


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_answered_like_any_other(told: Told, algorithm: str) -> None:
    assert told[algorithm] == ANSWER


def test_a_large_compressed_request_is_read_whole(told: Told) -> None:
    assert told["gzip_large"] == {"bytes": 8 * MIB, "right": True}

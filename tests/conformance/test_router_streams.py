"""ModelStreamInfer through the router: seen by tritonclient's stubs, and by @grpc/grpc-js."""

from functools import partial
from typing import Any

import pytest

from tests.conformance.javascript import needs_node, told_by_node
from tests.doubles.processes import Started
from tests.doubles.server_process import told_by

Told = dict[str, Any]

CALLERS = {
    "python": partial(told_by, "tests.conformance.callers.streamed"),
    "node": partial(told_by_node, "streamed.js"),
}
VERSIONS = {"stable": "1", "canary": "2"}


@pytest.fixture(scope="module", params=["python", pytest.param("node", marks=needs_node)])
def told(router: Started, request: pytest.FixtureRequest) -> Told:
    answer: Told = CALLERS[request.param](router.address("data"))
    return answer


def test_all_requests_of_a_stream_are_answered_in_order_by_the_one_variant_it_names(
    told: Told,
) -> None:
    for stream in [*told["streams"], told["still"]]:
        assert stream["status"] == "OK", stream
        [variant] = stream["variants"]
        count = len(stream["answers"])
        assert stream["answers"] == [[str(each), VERSIONS[variant]] for each in range(count)]
    assert {len(stream["answers"]) for stream in told["streams"]} == {8}


def test_streams_are_split_as_requests_are(told: Told) -> None:
    drawn = sorted(variant for stream in told["streams"] for variant in stream["variants"])
    assert drawn == ["canary", "canary", "stable", "stable"]


def test_an_answer_can_be_waited_for_before_the_next_request(told: Told) -> None:
    assert told["in_turn"] == ["0", "1", "2"]


def test_a_stream_to_a_model_that_nobody_knows_is_told_so(told: Told) -> None:
    [said] = told["unknown"]["answers"] or [told["unknown"]["status"]]
    assert said == "NOT_FOUND" or "no route for model 'nobody'" in said


def test_a_cancelled_stream_ends_as_cancelled(told: Told) -> None:
    assert told["cancelled"] == {"first": ["0", "1"], "status": "CANCELLED", "answers": []}


def test_a_stream_out_of_time_is_told_so(told: Told) -> None:
    # Where the server finds it out first, in an answer; else by the stream's status.
    [said] = told["late"]["answers"] or [told["late"]["status"]]
    assert said == "DEADLINE_EXCEEDED" or "the deadline passed" in said

"""ModelStreamInfer through the router: seen by tritonclient's stubs, and by @grpc/grpc-js."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.conformance.javascript import needs_node, node_output_of
from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of

CALLERS: dict[str, Callable[..., Output]] = {
    "python": partial(output_of, "tests.conformance.callers.streamed"),
    "node": partial(node_output_of, "streamed.js"),
}
VERSIONS = {"stable": "1", "canary": "2"}


@pytest.fixture(scope="module", params=["python", pytest.param("node", marks=needs_node)])
def output(router: Started, request: pytest.FixtureRequest) -> Output:
    return CALLERS[request.param](router.address("data"))


def test_all_requests_of_a_stream_are_answered_in_order_by_the_one_variant_it_names(
    output: Output,
) -> None:
    for stream in [*output["streams"], output["still"]]:
        assert stream["status"] == "OK", stream
        [variant] = stream["variants"]
        count = len(stream["answers"])
        assert stream["answers"] == [[str(each), VERSIONS[variant]] for each in range(count)]
    assert {len(stream["answers"]) for stream in output["streams"]} == {8}


def test_streams_are_split_as_requests_are(output: Output) -> None:
    drawn = sorted(variant for stream in output["streams"] for variant in stream["variants"])
    assert drawn == ["canary", "canary", "stable", "stable"]


def test_an_answer_can_be_waited_for_before_the_next_request(output: Output) -> None:
    assert output["in_turn"] == ["0", "1", "2"]


def test_a_stream_to_a_model_that_nobody_knows_is_told_so(output: Output) -> None:
    [said] = output["unknown"]["answers"] or [output["unknown"]["status"]]
    assert said == "NOT_FOUND" or "no route for model 'nobody'" in said


def test_a_cancelled_stream_ends_as_cancelled(output: Output) -> None:
    assert output["cancelled"] == {"first": ["0", "1"], "status": "CANCELLED", "answers": []}


def test_a_stream_out_of_time_is_told_so(output: Output) -> None:
    # Where the server finds it out first, in an answer; else by the stream's status.
    [said] = output["late"]["answers"] or [output["late"]["status"]]
    assert said == "DEADLINE_EXCEEDED" or "the deadline passed" in said

"""What a call carries through the router: seen by tritonclient's stubs, and by @grpc/grpc-js."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.conformance.echo import DETAILS, REFUSED
from tests.conformance.javascript import needs_node, node_output_of
from tests.doubles.processes import Started
from tests.doubles.server_process import Output, output_of

MIB = 1024 * 1024
# Of a time-out on the wire: gRPC rounds it up to few digits.
ROUNDING_MS = 500
CALLERS: dict[str, Callable[..., Output]] = {
    "python": partial(output_of, "tests.conformance.callers.forwarded"),
    "node": partial(node_output_of, "forwarded.js"),
}
GOT = {
    "x-got-one": "1, two, three",
    "x-got-empty": "",
    "x-got-raw-bin": f"{bytes(range(256)).hex()}, 00",
}


@pytest.fixture(scope="module", params=["python", pytest.param("node", marks=needs_node)])
def output(router: Started, echo: str, request: pytest.FixtureRequest) -> Output:
    addresses = router.address("data"), echo
    return CALLERS[request.param](*addresses)


def test_repeated_keys_empty_values_and_bytes_go_there_and_back(output: Output) -> None:
    carried = output["carried"]
    assert carried["id"] == "f-1"
    assert carried["initial"] == GOT
    assert {key: carried["trailing"].get(key) for key in GOT} == GOT
    assert carried["trailing"]["x-pairs"] == "5", "each pair for itself, none joined to another"


def test_the_answer_says_which_variant_and_revision_gave_it(output: Output) -> None:
    assert output["carried"]["trailing"]["x-coalmine-variant"] == "stable"
    assert int(output["carried"]["trailing"]["x-coalmine-revision"]) >= 1


def test_the_backend_has_what_is_left_of_the_callers_time(output: Output) -> None:
    assert 15_000 < int(output["carried"]["trailing"]["x-left-ms"]) <= 20_000 + ROUNDING_MS


def test_where_the_caller_has_no_deadline_the_backend_has_the_routes(output: Output) -> None:
    assert 8_000 < int(output["no_deadline"]["trailing"]["x-left-ms"]) <= 10_000 + ROUNDING_MS


def test_a_refusal_keeps_its_message_its_details_and_its_metadata(output: Output) -> None:
    refused = output["refused"]
    assert (refused["status"], refused["message"]) == ("FAILED_PRECONDITION", REFUSED)
    assert refused["trailing"]["grpc-status-details-bin"] == DETAILS.hex()
    assert {key: refused["trailing"].get(key) for key in GOT} == GOT
    assert refused["trailing"]["x-coalmine-variant"] == "stable"
    assert "x-coalmine-origin" not in refused["trailing"], "it is the backend's own"


def test_a_call_out_of_time_ends_at_the_caller_and_at_the_backend(output: Output) -> None:
    assert (output["late"]["status"], output["late"]["echo_cancelled"]) == (
        "DEADLINE_EXCEEDED",
        True,
    )


def test_a_cancelled_call_is_cancelled_at_the_backend(output: Output) -> None:
    assert output["cancelled"] == {"status": "CANCELLED", "echo_came": True, "echo_cancelled": True}


def test_sixty_mebibytes_go_there_and_back(output: Output) -> None:
    assert output["large"] == {"bytes": 60 * MIB, "right": True}


def test_a_compressed_request_is_answered_like_any_other(output: Output) -> None:
    assert output["compressed"] == {"bytes": MIB, "right": True}


def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(output: Output) -> None:
    assert output["too_large"]["status"] == "RESOURCE_EXHAUSTED"
    assert output["still"] == {"bytes": 1, "right": True}

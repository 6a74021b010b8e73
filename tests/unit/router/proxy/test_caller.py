import pytest

from coalmine_router.metadata import Pair
from coalmine_router.proxy.caller import caller_of


def test_metadata_of_a_hop_stays_behind_and_the_rest_keeps_its_order() -> None:
    caller = caller_of(
        [
            ("user-agent", "grpc-python"),
            ("x-a", "1"),
            ("grpc-accept-encoding", "gzip"),
            ("te", "trailers"),
            ("x-a", "2"),
            ("b-bin", b"\xff"),
            (":authority", "router"),
        ]
    )
    assert caller.metadata == [("x-a", "1"), ("x-a", "2"), ("b-bin", b"\xff")]


def test_the_traceparent_is_read_and_taken_out() -> None:
    caller = caller_of([("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"), ("tracestate", "v=1")])
    assert caller.parent is not None
    assert caller.parent.sampled
    assert caller.tracestate == "v=1"
    assert caller.metadata == [("tracestate", "v=1")]


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01"])
def test_a_traceparent_that_is_none_begins_a_new_trace(header: str) -> None:
    caller = caller_of([("traceparent", header), ("tracestate", "v=1"), ("baggage", "a=1")])
    assert (caller.parent, caller.tracestate) == (None, "")
    assert caller.metadata == [("baggage", "a=1")], "its tracestate is of no trace"


def test_a_tracestate_in_several_headers_is_one() -> None:
    parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    caller = caller_of([parent, ("tracestate", "v=1"), ("tracestate", "w=2")])
    assert caller.tracestate == "v=1,w=2"


def test_a_pin_is_read_and_travels_on() -> None:
    caller = caller_of([("x-coalmine-variant", "canary")])
    assert caller.pin == "canary"
    assert caller.metadata_value("x-coalmine-variant") == "canary"


def test_a_binary_value_can_be_a_sticky_key_too() -> None:
    caller = caller_of([("user-bin", b"\x01\xff")])
    assert caller.metadata_value("user-bin") == "01ff"
    assert caller.metadata_value("absent") is None


def test_a_token_that_was_the_routers_to_read_stays_behind() -> None:
    key = "authorization"
    sent = [("x-a", "1"), (key, "Bearer secret"), ("x-b", "2"), (key, "Bearer other")]
    caller = caller_of(sent, drop_authorization=True)
    assert caller.metadata == [("x-a", "1"), ("x-b", "2")]
    assert caller.metadata_value("authorization") is None


def test_a_token_that_the_router_does_not_read_is_the_backends() -> None:
    caller = caller_of([("authorization", "Bearer secret")])
    assert caller.metadata == [("authorization", "Bearer secret")]


def test_only_the_token_stays_behind_and_nothing_that_looks_like_it() -> None:
    sent: list[Pair] = [
        ("proxy-authorization", "a"),
        ("x-authorization", "b"),
        ("authorization-bin", b"c"),
    ]
    assert caller_of(sent, drop_authorization=True).metadata == sent


def test_of_a_key_that_comes_twice_the_first_value_counts() -> None:
    caller = caller_of([("x-user", "ann"), ("x-user", "bob")])
    assert caller.metadata_value("x-user") == "ann"

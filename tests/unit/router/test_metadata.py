"""Which metadata goes through the router, and which is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.metadata import Pair, answer_metadata, is_passed_on, unsendable_key, with_token


@pytest.mark.parametrize(
    "key",
    [
        "te",
        "content-type",
        "user-agent",
        "host",
        ":path",
        ":authority",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-status-details-bin",
        "grpc-anything",
    ],
)
def test_what_belongs_to_a_hop_stays_there(key: str) -> None:
    assert not is_passed_on(key)
    assert answer_metadata([(key, "1")]) == []


@pytest.mark.parametrize(
    "key",
    ["x-user", "authorization", "tracestate", "te-x", "x-grpc-a", "hosts", "user-agent-x", "a-bin"],
)
def test_what_is_the_callers_travels_on(key: str) -> None:
    assert is_passed_on(key)
    assert answer_metadata([(key, "1")]) == [(key, "1")]


@pytest.mark.parametrize(
    ("value", "key"),
    [("a ~", ""), ("", ""), ("é", "x"), ("a\tb", "x"), ("\x7f", "x"), (b"\xff", "")],
)
def test_a_value_that_grpc_will_not_send_is_named_by_its_key(value: str | bytes, key: str) -> None:
    assert unsendable_key([("a", "b"), ("x", value), ("z", "\n" if key else "")]) == key


def test_callers_may_speak_to_the_router_but_backends_not_in_its_name() -> None:
    assert is_passed_on("x-coalmine-variant")
    forged = [("x-coalmine-variant", "a"), ("x-coalmine-origin", "router"), ("x-coalmine-", "")]
    assert answer_metadata(forged) == []
    assert answer_metadata([("x-coalminer", "digs")]) == [("x-coalminer", "digs")]


@given(st.lists(st.tuples(st.sampled_from(["x-a", "x-b-bin", "te", "x-coalmine-a"]), st.text())))
def test_what_is_left_keeps_its_order_and_its_repetitions(pairs: list[tuple[str, str]]) -> None:
    assert answer_metadata(pairs) == [pair for pair in pairs if pair[0] in {"x-a", "x-b-bin"}]


def test_what_the_router_shows_stands_alone_whatever_a_caller_showed() -> None:
    said: list[Pair] = [("authorization", "a"), ("x-user", "b"), ("authorization", "c")]
    shown = (("authorization", "router's"),)
    assert with_token(said, shown) == [("x-user", "b"), *shown]
    assert with_token(said, ()) == said

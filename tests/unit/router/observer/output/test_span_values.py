"""What the router's spans say of calls, and the form of every value."""

import math

import pytest

from coalmine import telemetry as t
from coalmine_router.observer.output import span_values as values


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("10.0.0.7:8001", "10.0.0.7", 8001), ("[::1]:8001", "::1", 8001), ("server", "server", None)],
)
def test_an_address_is_told_as_host_and_port(address: str, host: str, port: int | None) -> None:
    told = values.peer_values("shadow", "canary", "blue", address)
    assert (told[t.SERVER_ADDRESS], told.get(t.SERVER_PORT)) == (host, port)


def test_what_says_nothing_is_left_out_and_zero_says_something() -> None:
    assert values.non_empty({"a": "", "b": None, "c": 0, "d": 0.0, "e": "x"}) == {
        "c": 0,
        "d": 0.0,
        "e": "x",
    }


@pytest.mark.parametrize(("value", "told"), [(math.inf, "inf"), (-math.inf, "-inf"), (0.5, 0.5)])
def test_a_number_that_json_has_no_word_for_is_told_as_text(value: float, told: object) -> None:
    assert values.capped_values({"a": value}) == {"a": told}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("scores", "p.scores"),
        ("StatefulPartitionedCall:0", "p.StatefulPartitionedCall:0"),
        ('a b="c"', "p.a_b__c_"),
        ("größe", "p.größe"),
        ("x" * 500, "p." + "x" * 128),
    ],
)
def test_an_attribute_named_by_a_model_needs_no_quotes_and_is_short(name: str, key: str) -> None:
    assert values.attribute_name("p.", name) == key

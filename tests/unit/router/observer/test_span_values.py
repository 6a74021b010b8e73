"""What the router's spans say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine import telemetry as t
from coalmine_router.observer import span_values as values
from coalmine_router.observer.compare import Comparison, Difference
from coalmine_router.observer.rules import Element


@pytest.mark.parametrize(
    ("distance", "bucket"),
    [
        (0.0, "0"),
        (1e-6, "1e-6"),
        (1.0000001e-6, "1e-5"),
        (9.9e-6, "1e-5"),
        (0.2, "1e0"),
        (1.0, "1e0"),
        (1.5, "1e1"),
        (1000.0, "1e3"),
        (5e-324, "1e-323"),
        (math.inf, "inf"),
    ],
)
def test_a_distance_falls_into_the_power_of_ten_at_or_above(distance: float, bucket: str) -> None:
    assert values.diff_bucket(distance) == bucket


@pytest.mark.parametrize("exponent", range(-300, 300, 7))
def test_a_power_of_ten_is_its_own_bucket(exponent: int) -> None:
    assert values.diff_bucket(float(f"1e{exponent}")) == f"1e{exponent}"


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_bucket_holds_its_distance_and_is_the_least_that_does(distance: float) -> None:
    bucket = float(values.diff_bucket(distance))
    assert bucket / 10 < distance * (1 + 1e-12)
    assert distance <= bucket * (1 + 1e-12)


@given(st.text(max_size=3_000))
def test_no_text_is_over_two_kib_and_short_ones_are_whole(text: str) -> None:
    cut = values.capped_text(text)
    assert len(cut.encode()) <= values.VALUE_BYTES_MAX
    assert text.startswith(cut)
    if len(text.encode()) <= values.VALUE_BYTES_MAX:
        assert cut == text


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("10.0.0.7:8001", "10.0.0.7", 8001), ("[::1]:8001", "::1", 8001), ("server", "server", None)],
)
def test_an_address_is_told_as_host_and_port(address: str, host: str, port: int | None) -> None:
    told = values.peer("shadow", "canary", "blue", address)
    assert (told[t.SERVER_ADDRESS], told.get(t.SERVER_PORT)) == (host, port)


def test_the_worst_elements_stand_side_by_side() -> None:
    worst = (Element((0, 3), "0.9", "0.1"), Element((1, 0), "0.5", "nan"))
    told = values.difference(Difference("logits", "value", worst))
    assert told == {
        "name": "logits",
        "kind": "value",
        "index": "[0, 3], [1, 0]",
        "expected": "0.9, 0.5",
        "actual": "0.1, nan",
    }


def test_a_distance_is_told_only_where_values_were_compared() -> None:
    told = values.comparison("stable", "canary", Comparison("mismatch", "missing"))
    assert {t.COMPARE_MAX_ABS_DIFF, t.COMPARE_DIFF_BUCKET}.isdisjoint(told)
    told = values.comparison("stable", "canary", Comparison("match", max_abs_diff=3e-7))
    assert (told[t.COMPARE_MAX_ABS_DIFF], told[t.COMPARE_DIFF_BUCKET]) == (3e-7, "1e-6")


def test_an_infinite_distance_is_told_by_its_bucket_alone() -> None:
    told = values.comparison("a", "b", Comparison("mismatch", "value", max_abs_diff=math.inf))
    assert told[t.COMPARE_DIFF_BUCKET] == "inf"
    assert t.COMPARE_MAX_ABS_DIFF not in told

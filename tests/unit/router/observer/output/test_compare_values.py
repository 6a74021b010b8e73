"""What a compare span says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine import telemetry as t
from coalmine_router.observer.comparison.result import Comparison, Difference, Element, Kind
from coalmine_router.observer.output import compare_values as values
from tests.doubles.observed_requests import difference, failed, mismatch, pair_result


def told(comparison: Comparison) -> dict[str, str | int | float]:
    return values.comparison_values(pair_result(comparison))


def over(comparison: Comparison) -> list[str]:
    names = [name for name in told(comparison) if name.startswith(t.COMPARE_OVER_PREFIX)]
    return [name.removeprefix(t.COMPARE_OVER_PREFIX) for name in names]


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


@given(st.floats(min_value=0, allow_nan=False))
def test_a_search_for_more_than_a_power_of_ten_finds_exactly_what_is_more(distance: float) -> None:
    exceeded = set(over(Comparison("match", max_abs_diff=distance)))
    powers = [f"1e{exponent}" for exponent in range(-6, 4)]
    assert exceeded == {each for each in powers if distance > float(each)}


@pytest.mark.parametrize("kind", ["status", "malformed", "missing", "extra", "datatype", "shape"])
def test_a_distance_is_told_only_where_values_were_compared(kind: Kind) -> None:
    assert {t.COMPARE_MAX_ABS_DIFF, t.COMPARE_DIFF_BUCKET}.isdisjoint(
        told(Comparison("mismatch", kind))
    )
    near = told(Comparison("match", max_abs_diff=3e-7))
    assert (near[t.COMPARE_MAX_ABS_DIFF], near[t.COMPARE_DIFF_BUCKET]) == (3e-7, "1e-6")


def test_labels_that_differ_have_a_distance_only_where_one_was_measured() -> None:
    assert t.COMPARE_DIFF_BUCKET not in told(mismatch(difference(kind="label", max_abs_diff=0)))
    assert told(mismatch(difference(kind="label")))[t.COMPARE_DIFF_BUCKET] == "1e0"


def test_an_infinite_distance_is_told_by_its_bucket_and_exceeds_everything() -> None:
    endless = Comparison("mismatch", "value", max_abs_diff=math.inf)
    assert told(endless)[t.COMPARE_DIFF_BUCKET] == "inf"
    assert t.COMPARE_MAX_ABS_DIFF not in told(endless)
    assert over(endless)[-1] == "1e3"


def test_each_output_that_differs_is_an_attribute_and_those_that_match_are_none() -> None:
    prefix = t.COMPARE_OUTPUT_PREFIX
    both = told(mismatch(difference("scores"), difference("logits", "nan")))
    named = {name for name in both if name.startswith(prefix)}
    assert named == {f"{prefix}scores", f"{prefix}logits"}
    assert not [name for name in told(failed()) if name.startswith(prefix)]


def test_no_more_than_32_outputs_are_named() -> None:
    many = told(mismatch(*(difference(f"y{each}") for each in range(64))))
    assert len([name for name in many if name.startswith(t.COMPARE_OUTPUT_PREFIX)]) == 32


def test_the_worst_elements_stand_side_by_side() -> None:
    worst = (Element((0, 3), "0.9", "0.1"), Element((1, 0), "0.5", "nan"))
    found = Difference(
        "logits", "value", worst, 0.8, rows=4, rows_mismatch=2, rule="cosine", score=0.25
    )
    assert values.difference_values(found) == {
        "name": "logits",
        "kind": "value",
        "index": "[0, 3], [1, 0]",
        "expected": "0.9, 0.5",
        "actual": "0.1, nan",
        "rows": 4,
        "rows_mismatch": 2,
        "max_abs_diff": 0.8,
        "rule": "cosine",
        "score": 0.25,
    }


def test_no_more_than_eight_elements_are_told() -> None:
    worst = tuple(Element((each,), "0", "1") for each in range(20))
    assert values.difference_values(Difference("y", "value", worst))["index"] == (
        "[0], [1], [2], [3], [4], [5], [6], [7]"
    )

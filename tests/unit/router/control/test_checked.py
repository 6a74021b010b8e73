"""Bounds on what callers may ask for."""

import pytest

from coalmine.errors import InvalidRequest
from coalmine_router.control import checked


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (999, 999), (1_000, 1_000)])
def test_a_limit_of_zero_is_the_usual_one(asked: int, given: int) -> None:
    assert checked.limit_or(asked, otherwise=50) == given


def test_a_limit_over_a_thousand_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 1000, got 1001"):
        checked.limit_or(1_001, otherwise=50)


@pytest.mark.parametrize(("asked", "given"), [(0, 1.0), (100, 0.1), (3_600_000, 3_600.0)])
def test_an_interval_of_zero_is_a_second(asked: int, given: float) -> None:
    assert checked.interval_s(asked) == given


@pytest.mark.parametrize("asked", [1, 99, 3_600_001, 2**64 - 1])
def test_an_interval_out_of_bounds_is_refused(asked: int) -> None:
    with pytest.raises(InvalidRequest, match="expected 100 to 3600000"):
        checked.interval_s(asked)


@pytest.mark.parametrize("value", ["", "why not", "größer, 大きい", "x" * 10])
def test_a_plain_line_within_its_length_is_kept(value: str) -> None:
    assert checked.one_line_text("reason", value, 10 if len(value) <= 10 else 20) == value


@pytest.mark.parametrize("value", ["two\nlines", "\x1b[31mred", "tab\t", "x" * 1_001])
def test_text_that_would_spoil_a_terminal_or_a_page_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="reason: "):
        checked.one_line_text("reason", value, 1_000)


@pytest.mark.parametrize("value", ["", "n" * 129])
def test_a_name_has_1_to_128_characters(value: str) -> None:
    with pytest.raises(InvalidRequest, match="route: "):
        checked.plain_name("route", value)
    assert checked.plain_name("route", "n" * 128) == "n" * 128


@pytest.mark.parametrize(
    ("said", "known", "actor"),
    [
        ("", "", ""),
        ("ada@tower", "", "ada@tower"),
        ("", "anna", "anna"),
        ("anna", "anna", "anna"),
        ("ada@tower", "ci", "ci (ada@tower)"),
        ("x", "CN=a\nb", "CN=a?b (x)"),
        ("x", "C" * 999, "C" * 128 + " (x)"),
    ],
)
def test_an_actor_is_first_who_it_is_proved_to_be(said: str, known: str, actor: str) -> None:
    assert checked.actor(said, known) == actor

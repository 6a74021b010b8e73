"""Figures in words."""

import pytest

from coalmine_router.observer.evidence.gates.wording import count_text, interval_text, percent
from coalmine_router.observer.evidence.interval import Rate


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (0.0, "0 %"),
        (0.0312, "3.1 %"),
        (0.01, "1 %"),
        (0.00042, "0.042 %"),
        (1e-9, "0 %"),
        (0.0999, "10 %"),
        (0.444, "44.4 %"),
        (1.0, "100 %"),
        (-0.02, "-2 %"),
    ],
)
def test_a_rate_has_two_digits_that_count(rate: float, told: str) -> None:
    assert percent(rate) == told


def test_counts_are_whole_unless_they_are_few_and_expected() -> None:
    assert [count_text(each) for each in (12_345, 6.0, 6.25, 123.4)] == [
        "12,345",
        "6",
        "6.2",
        "123",
    ]


def test_an_interval_is_told_by_its_ends() -> None:
    assert interval_text(Rate(0.03, 0.019, 0.048, 420)) == "(1.9 % to 4.8 %)"

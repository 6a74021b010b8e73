from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.command_line.failure import WrongUsage
from coalmine.shares import percent
from coalmine_client.cli.percents import parse_share, parse_shares, rate_text


@pytest.mark.parametrize(
    ("text", "share_bp"),
    [
        ("canary=10", 1_000),
        ("canary=10%", 1_000),
        ("canary=0", 0),
        ("canary=100", 10_000),
        ("canary=33.33", 3_333),
        ("canary=0.01%", 1),
        ("canary=0.1", 10),
        ("canary= 5 ", 500),
        ("canary=10.500", 1_050),
        ("canary=10.00000000000000000000", 1_000),
    ],
)
def test_a_percentage_becomes_exact_hundredths_of_a_percent(text: Any, share_bp: Any) -> None:
    assert parse_share(text) == ("canary", share_bp)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("canary", "expected NAME=PERCENT"),
        ("=10", "expected NAME=PERCENT"),
        ("canary=", "expected a percentage"),
        ("canary=ten", "expected a percentage"),
        ("canary=10%%", "expected a percentage"),
        ("canary=nan", "expected a percentage"),
        ("canary=1e1", "expected a percentage"),
        ("canary=099", "expected a percentage"),
        ("canary=+9", "expected a percentage"),
        ("canary=1_0", "expected a percentage"),
        ("canary=\u0663", "expected a percentage"),  # an Arabic three
        ("canary=inf", "from 0 to 100, two decimals at most, got"),
        ("canary=-1", "from 0 to 100, two decimals at most, got"),
        ("canary=100.01", "from 0 to 100, two decimals at most, got"),
        ("canary=0.001", "two decimals"),
        ("canary=1e-99", "two decimals"),
        ("canary=1e999999999", "from 0 to 100, two decimals at most, got"),
        ("canary=10.0000000000000000000000000000001", "two decimals"),
        ("canary=123456789012345678", "from 0 to 100, two decimals at most, got"),
    ],
)
def test_what_is_no_exact_percentage_is_wrong_usage(text: Any, why: Any) -> None:
    with pytest.raises(WrongUsage, match=why):
        parse_share(text)


def test_a_variant_that_is_given_twice_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="'canary' is given twice"):
        parse_shares(["canary=10", "stable=80", "canary=10"])


@given(st.integers(0, 10_000))
def test_every_share_reads_back_as_it_was_written(share_bp: Any) -> None:
    assert parse_share(f"v={percent(share_bp)}") == ("v", share_bp)


@pytest.mark.parametrize(
    ("share_bp", "text"), [(0, "0%"), (1, "0.01%"), (50, "0.5%"), (1_000, "10%"), (10_000, "100%")]
)
def test_a_share_is_written_without_needless_zeros(share_bp: Any, text: Any) -> None:
    assert percent(share_bp) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 7, "0.00%"),
        (7, 7, "100.00%"),
        (1, 3, "33.33%"),
        (1, 1_000_000, "<0.01%"),
        (999_999, 1_000_000, ">99.99%"),
    ],
)
def test_a_rate_never_rounds_something_to_nothing_or_to_all(
    part: Any, whole: Any, text: Any
) -> None:
    assert rate_text(part, whole) == text

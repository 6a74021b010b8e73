"""How many calls begin in a second, and how they lie in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.copies.rate import CallRate

SECOND_NS = 10**9


def taken(rate: CallRate, rps: float, *, at: list[int]) -> list[int]:
    return [now_ns for now_ns in at if rate.take(now_ns, rps)]


@pytest.mark.parametrize("rps", [0.5, 1, 3, 10, 100, 1_500])
def test_under_load_as_many_begin_as_the_rate_allows(rps: float) -> None:
    arrivals = list(range(0, 20 * SECOND_NS, SECOND_NS // 4_000))
    begun = taken(CallRate(), rps, at=arrivals)
    assert len(begun) == pytest.approx(20 * rps, rel=0.03, abs=1)


def test_the_calls_of_a_second_are_spread_over_it() -> None:
    begun = taken(CallRate(), 100, at=list(range(0, 10 * SECOND_NS, SECOND_NS // 2_000)))
    tenths = [sum(each // (SECOND_NS // 10) == tenth for each in begun) for tenth in range(100)]
    assert tenths[0] <= 20
    assert set(tenths[1:]) <= {9, 10, 11}


def test_what_arrives_below_the_rate_all_begins() -> None:
    arrivals = [number * SECOND_NS // 50 for number in range(500)]
    assert taken(CallRate(), 60, at=arrivals) == arrivals


def test_a_quiet_time_is_not_saved_up_for_a_burst() -> None:
    rate = CallRate()
    assert rate.take(0, 100)
    at_once = taken(rate, 100, at=[3_600 * SECOND_NS] * 1_000)
    assert len(at_once) == 10


def test_a_rate_that_is_raised_holds_from_now_on() -> None:
    rate = CallRate()
    assert rate.take(0, 0.001)
    assert not rate.take(SECOND_NS, 0.001)
    assert len(taken(rate, 100, at=list(range(SECOND_NS, 2 * SECOND_NS, 10**6)))) >= 89


@given(
    st.floats(0.1, 1_000),
    st.lists(st.integers(0, 50_000_000), max_size=200),
)
def test_no_second_holds_more_than_the_rate_and_its_burst(rps: float, gaps: list[int]) -> None:
    at, now_ns = [], 0
    for gap in gaps:
        now_ns += gap
        at.append(now_ns)
    begun = taken(CallRate(), rps, at=at)
    for first in begun:
        within = sum(first <= each < first + SECOND_NS for each in begun)
        assert within <= rps + max(1, rps / 10) + 1

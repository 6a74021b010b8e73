"""Means with their intervals: what the gates' own tests leave open."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.counts import Differences, Shares
from coalmine_router.observer.evidence.interval import Rate, difference_of, rate_of
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.paired import log_above, log_below

sums = st.floats(0, 1e6)


@given(sums, sums, st.sampled_from([0.05, 0.01]))
def test_a_rate_lies_in_its_interval_and_that_between_0_and_1(
    ones: float, zeros: float, alpha: float
) -> None:
    found = rate_of(Shares(ones, zeros), alpha)
    assert 0.0 <= found.low <= found.value + 1e-9
    assert found.value <= found.high + 1e-9 <= 1.0 + 2e-9


@given(st.floats(0.0, 5_000.0), st.floats(0.0, 5_000.0), st.floats(0.001, 0.5), st.booleans())
def test_the_interval_leaves_out_just_what_the_gate_decides(
    ones: float, zeros: float, bound: float, is_tight: bool
) -> None:
    alpha = 0.001 if is_tight else 0.05
    rate, found = rate_of(Shares(ones, zeros), alpha), log_evidence(ones, zeros, bound)
    if rate.requests and min(abs(rate.low - bound), abs(rate.high - bound)) > 1e-4 * bound:
        assert (found.above >= math.log(1 / alpha)) == (bound < rate.low)
        assert (found.below >= math.log(1 / alpha)) == (bound > rate.high)


@given(sums, sums, sums, st.floats(-0.5, 0.5))
def test_the_interval_of_a_difference_leaves_out_just_what_the_gate_decides(
    worse: float, same: float, better: float, bound: float
) -> None:
    counts, found = np.array([worse, same, better]), Differences(worse, same, better)
    rate = difference_of(found, 0.05)
    if found.requests and min(abs(rate.low - bound), abs(rate.high - bound)) > 1e-6:
        assert bool(log_above(counts, bound) >= math.log(20)) == (bound < rate.low)
        assert bool(log_below(counts, bound) >= math.log(20)) == (bound > rate.high)


def test_nothing_counted_leaves_everything_open() -> None:
    assert rate_of(Shares(), 0.05) == Rate(0.0, 0.0, 1.0, 0)
    assert difference_of(Differences(), 0.05) == Rate(0.0, -1.0, 1.0, 0)


def test_a_rate_of_nothing_but_one_outcome_reaches_its_end() -> None:
    assert rate_of(Shares(0.0, 449.0), 0.05) == pytest.approx(Rate(0.0, 0.0, 0.01, 449), rel=0.01)
    assert rate_of(Shares(449.0, 0.0), 0.05).high == 1.0


def test_without_a_difference_the_interval_is_a_third_of_that_by_empirical_bernstein() -> None:
    # confseq 0.0.11's predmix_empbern_cs of 500 zeros, in [-1, 1]: 0.0299 to either side.
    found = difference_of(Differences(0.0, 500.0, 0.0), 0.05)
    assert found.high == pytest.approx(0.0102, abs=0.0001)
    assert found.low == pytest.approx(-found.high)


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.5])
def test_each_end_holds_the_rate_at_every_look(rate: float) -> None:
    chance, missed = np.random.default_rng(41), [0, 0]
    looks = [1, 2, 3, 5, 8, 12, 18, 25, 40, 60, 100, 200, 400, 1_000]
    for _ in range(60):
        ones = (chance.random(1_000) < rate).cumsum()
        found = [rate_of(Shares(float(ones[n - 1]), float(n - ones[n - 1])), 0.05) for n in looks]
        missed[0] += any(each.low > rate for each in found)
        missed[1] += any(each.high < rate for each in found)
    assert max(missed) <= 5

"""Means with their intervals: what the gates' own tests leave open."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.counts import Shares
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.interval import (
    Rate,
    difference_of,
    differences_of,
    rate_of,
    rates_of,
)
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.paired import log_above, log_below

sums = st.floats(0, 1e6)


def end(rejects: Callable[[float], bool], outer: float, inner: float) -> float:
    """Return where `rejects` turns from true to false, by halving; `outer` where it never does."""
    if not rejects(outer):
        return outer
    for _ in range(60):
        middle = (outer + inner) / 2.0
        outer, inner = (middle, inner) if rejects(middle) else (outer, middle)
    return outer


def ends_of_a_rate(of: Shares, needed: float) -> tuple[float, float]:
    """Return the ends by `log_evidence` itself, one by one."""
    inner = min(max(of.mean, 1e-12), 1.0 - 1e-12)
    return (
        end(lambda p: log_evidence(of.mismatch, of.match, p).above >= needed, 1e-15, inner),
        end(lambda p: log_evidence(of.mismatch, of.match, p).below >= needed, 1 - 1e-15, inner),
    )


def ends_of_a_difference(of: Differences, needed: float) -> tuple[float, float]:
    """Return the ends by `log_above` and `log_below` themselves, one by one."""
    counts, most = np.array([of.worse, of.same, of.better]), 1.0 - 1e-12
    inner = min(max(of.mean, -most), most)
    return (
        end(lambda bound: bool(log_above(counts, bound) >= needed), -most, inner),
        end(lambda bound: bool(log_below(counts, bound) >= needed), most, inner),
    )


def some_shares(requests_max: float) -> list[Shares]:
    """Return sums of up to so many requests: small rates, large ones, and nothing but one."""
    chance = np.random.default_rng(43)
    requests = np.ceil(requests_max ** chance.random(40))
    ones = requests * np.concatenate([chance.random(20) ** 6, chance.random(12), [0, 1] * 4])
    pairs = zip(ones.tolist(), (requests - ones).tolist(), strict=True)
    return [Shares(*each) for each in pairs] + [Shares()]


def some_differences(requests_max: float) -> list[Differences]:
    """Return sums of up to so many requests, often with hardly any of one sort or two."""
    chance = np.random.default_rng(47)
    requests = np.ceil(requests_max ** chance.random((40, 1)))
    parts = np.concatenate([chance.dirichlet([0.1, 0.5, 0.1], 37), np.eye(3)])
    return [Differences(*each) for each in (requests * parts).tolist()] + [Differences()]


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


@pytest.mark.parametrize("requests_max", [10.0, 1e4, 1e9])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001])
def test_many_rates_at_once_end_where_the_test_of_each_does(
    requests_max: float, alpha: float
) -> None:
    shares = some_shares(requests_max)
    expected = [ends_of_a_rate(each, -math.log(alpha)) for each in shares]
    found = rates_of(shares, alpha)
    assert np.array([each[1:3] for each in found]) == pytest.approx(np.array(expected), abs=1e-6)
    assert [(each.value, each.requests) for each in found] == [
        (each.mean, each.requests) for each in shares
    ]


@pytest.mark.parametrize("requests_max", [10.0, 1e4, 1e9])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001])
def test_many_differences_at_once_end_where_the_test_of_each_does(
    requests_max: float, alpha: float
) -> None:
    differences = some_differences(requests_max)
    expected = [ends_of_a_difference(each, -math.log(alpha)) for each in differences]
    found = differences_of(differences, alpha)
    assert np.array([each[1:3] for each in found]) == pytest.approx(np.array(expected), abs=1e-6)
    assert [(each.value, each.requests) for each in found] == [
        (each.mean, each.requests) for each in differences
    ]


@given(st.floats(0.01, 1e6), sums, st.sampled_from([0.5, 0.05, 1e-4]))
def test_an_end_is_never_inside_of_what_the_test_rejects(
    ones: float, zeros: float, alpha: float
) -> None:
    low = rate_of(Shares(ones, zeros), alpha).low
    if low > 1e-12:
        assert log_evidence(ones, zeros, low).above == pytest.approx(-math.log(alpha), abs=1e-4)
        assert log_evidence(ones, zeros, low * (1.0 - 1e-4)).above > -math.log(alpha)


def test_what_is_mirrored_has_mirrored_intervals() -> None:
    rate, mirrored = rates_of([Shares(3.0, 97.0), Shares(97.0, 3.0)], 0.05)
    assert (rate.low, rate.high) == pytest.approx((1.0 - mirrored.high, 1.0 - mirrored.low))
    one, other = differences_of([Differences(9.0, 80.0, 1.0), Differences(1.0, 80.0, 9.0)], 0.05)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_rate_is_the_same_whatever_it_is_asked_together_with() -> None:
    shares, differences = some_shares(1e6), some_differences(1e6)
    alone = [rate_of(each, 0.05) for each in shares]
    assert np.array(rates_of(shares, 0.05)) == pytest.approx(np.array(alone), abs=1e-8)
    alone = [difference_of(each, 0.05) for each in differences]
    assert np.array(differences_of(differences, 0.05)) == pytest.approx(np.array(alone), abs=1e-8)


def test_of_none_there_is_none() -> None:
    assert rates_of([], 0.05) == differences_of([], 0.05) == []


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
        found = rates_of([Shares(float(ones[n - 1]), float(n - ones[n - 1])) for n in looks], 0.05)
        missed[0] += any(each.low > rate for each in found)
        missed[1] += any(each.high < rate for each in found)
    assert max(missed) <= 5

"""Formula A: the mean of numbers in [0, 1], looked at after every one of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.mixture import log_evidence
from tests.doubles.sequential_runs import fails_from, first, passes_below, sums

NEEDED = math.log(20)

# By confseq 0.0.11's beta_binomial_log_mixture at g = h = 1/2 with the prior of r = 1/2, which is
# even: ones, zeros, and both directions. Made by tests/conformance/confseq_figures.py.
CONFSEQ = [
    (0, 10, -2.3978952727983716, 5.226235312862919),
    (7, 3, 0.31900454358082075, -1.7386496439141084),
    (30, 20, -0.1490389617172757, -2.586101531603463),
    (10, 40, -3.4522819121895854, 8.365958543007684),
    (260, 190, 3.3165584316833456, -4.325532760623277),
    (900, 1_100, -5.343263378477049, 7.129818808351784),
]


# ---------------------------------------------------------------- known answers


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 88), (0.01, 449), (0.005, 901), (0.001, 4512)])
def test_so_many_matches_without_a_mismatch_pass(rate: float, needed: int) -> None:
    matches = np.arange(1, 6_000)
    passed = log_evidence(np.zeros(len(matches)), matches, rate).below >= NEEDED
    assert int(matches[passed.argmax()]) == needed


@pytest.mark.parametrize(("true", "median", "looks"), [(0.05, 111, 1_500), (0.1, 24, 400)])
def test_a_rate_above_the_allowed_fails_after_so_many_comparisons(
    true: float, median: int, looks: int
) -> None:
    seen = sums(np.random.default_rng(11), true, 4_000, looks)
    assert np.median(first(seen >= fails_from(0.01, looks))) == pytest.approx(median, rel=0.1)


def test_twice_the_allowed_rate_fails_after_so_many_comparisons() -> None:
    seen = sums(np.random.default_rng(12), 0.02, 1_500, 6_000)
    assert np.median(first(seen >= fails_from(0.01, 6_000))) == pytest.approx(1709, rel=0.1)


@pytest.mark.parametrize(("rate", "looks"), [(0.01, 10_000), (0.2, 3_000)])
def test_the_allowed_rate_itself_seldom_fails_or_passes_looked_at_each_time(
    rate: float, looks: int
) -> None:
    seen = sums(np.random.default_rng(13), rate, 2_000, looks)
    assert (seen >= fails_from(rate, looks)).any(axis=1).mean() <= 0.05
    assert (seen < passes_below(rate, looks)).any(axis=1).mean() <= 0.05


def test_rows_counted_as_if_they_were_independent_would_fail_a_sound_model() -> None:
    # Requests of 32 rows, all of them bad with the allowed rate: the mean share is just allowed.
    bad = sums(np.random.default_rng(14), 0.01, 500, 1_000)
    requests = np.arange(1, 1_001)
    by_row = log_evidence(32.0 * bad, 32.0 * (requests - bad), 0.01).above >= NEEDED
    by_request = bad >= fails_from(0.01, 1_000)
    assert by_row.any(axis=1).mean() > 0.5
    assert by_request.any(axis=1).mean() <= 0.05


def test_shares_between_0_and_1_seldom_fail_at_the_allowed_mean() -> None:
    # Of 32 rows, each bad with a rate of its request's own: 10 % in one request of ten.
    chance = np.random.default_rng(15)
    rates = 0.1 * (chance.random((300, 1_500)) < 0.1)
    ones = (chance.binomial(32, rates) / 32.0).cumsum(axis=1)
    found = log_evidence(ones, np.arange(1, 1_501) - ones, 0.01)
    assert (found.above >= NEEDED).any(axis=1).mean() <= 0.05
    assert (found.below >= NEEDED).any(axis=1).mean() <= 0.05


# ---------------------------------------------------------------- what it is


@pytest.mark.parametrize(("ones", "zeros", "above", "below"), CONFSEQ)
def test_it_agrees_with_confseq(ones: int, zeros: int, above: float, below: float) -> None:
    found = log_evidence(ones, zeros, 0.5)
    assert float(found.above) == pytest.approx(above, rel=1e-9)
    assert float(found.below) == pytest.approx(below, rel=1e-9)


@given(st.floats(0, 5_000), st.floats(0, 5_000), st.sampled_from([0.001, 0.01, 0.3]))
def test_a_mismatch_is_evidence_one_way_and_a_match_the_other(
    ones: float, zeros: float, rate: float
) -> None:
    now = log_evidence(ones, zeros, rate)
    worse, better = log_evidence(ones + 1, zeros, rate), log_evidence(ones, zeros + 1, rate)
    assert better.above < now.above < worse.above
    assert worse.below < now.below < better.below


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.3]),
    st.floats(0.001, 0.999),
)
def test_a_shares_factor_is_at_most_the_mean_of_those_it_lies_between(
    shares: list[float], rate: float, other: float
) -> None:
    up, down = other / rate, (1 - other) / (1 - rate)
    counted = sum(x * math.log(up) + (1 - x) * math.log(down) for x in shares)
    bet = sum(math.log(x * up + (1 - x) * down) for x in shares)
    assert counted <= bet + 1e-9


def test_nothing_seen_is_no_evidence() -> None:
    found = log_evidence(0.0, 0.0, 0.01)
    assert (float(found.above), float(found.below)) == pytest.approx((0.0, 0.0))


def test_evidence_is_finite_however_much_is_seen() -> None:
    for ones, zeros in ((0.0, 1e9), (1e9, 0.0), (1e7, 9.9e8), (5e8, 5e8)):
        found = log_evidence(ones, zeros, 0.01)
        assert math.isfinite(found.above)
        assert math.isfinite(found.below)


def test_evidence_for_the_other_side_is_not_clipped() -> None:
    # Twice the allowed rate of 1e9: only rates next to the bound count, e = 1/(0.01 (S/p - F/q)).
    slope = 2e7 / 0.01 - 9.8e8 / 0.99
    assert log_evidence(2e7, 9.8e8, 0.01).below == pytest.approx(-math.log(0.01 * slope), rel=1e-3)

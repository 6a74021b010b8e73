"""Bets: worth 1 at first, never more on average under what they bet against, and found in time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.betting.mean_bets import Limit, MeanBets, stakes_of
from coalmine_router.observer.evidence.betting.spells import Spell, SpellShare, SplitBets
from coalmine_router.observer.evidence.betting.wealth import Wealth

NEEDED = math.log(1.0 / 0.05)
LIMIT = Limit(0.01)
S = 10**9

shares = st.floats(0.0, 1.0)


def bets_after(observations: list[float], limit: Limit = LIMIT) -> MeanBets:
    bets = MeanBets()
    for each in observations:
        bets.observe(limit, each)
    return bets


def requests_until(log_of: str, rate: float, runs: int, most: int) -> float:
    """Return the median number of windows after which so many runs have decided."""
    rng, bets, decided = np.random.default_rng(7), MeanBets.of(runs), np.full(runs, np.inf)
    for number in range(1, most + 1):
        bets.observe(LIMIT, (rng.random(runs) < rate).astype(np.float64))
        decided[(getattr(bets, log_of)() >= NEEDED) & np.isinf(decided)] = number
    return float(np.median(decided))


# ---------------------------------------------------------------- means


def test_who_has_seen_nothing_has_won_nothing() -> None:
    bets = MeanBets()
    assert bets.log_fail() == pytest.approx(0.0)
    assert bets.log_pass() == pytest.approx(0.0)


@pytest.mark.parametrize("limit", [LIMIT, Limit(0.5), Limit(0.01, -1.0), Limit(-0.2, -1.0)])
@given(mean=shares)
def test_an_observation_at_the_limit_pays_one_on_average(limit: Limit, mean: float) -> None:
    """Of two values whose mean is the limit, drawn by the chances that make it so."""
    low = limit.least + (limit.value - limit.least) * mean * 0.99
    chance = (limit.value - low) / (1.0 - low)
    for stakes, sign in zip(stakes_of(limit), (1.0, -1.0), strict=True):
        factors = [1.0 + sign * stakes * (x - limit.value) for x in (low, 1.0)]
        assert np.all(factors[0] > 0.0)
        assert np.all(factors[1] > 0.0)
        assert (1.0 - chance) * factors[0] + chance * factors[1] == pytest.approx(1.0)


def test_a_clean_candidate_passes_and_a_wrong_one_fails_in_so_many_windows() -> None:
    assert requests_until("log_pass", 0.0, 1, 500) == 341
    assert requests_until("log_fail", 1.0, 1, 10) == 2
    assert requests_until("log_fail", 0.05, 200, 400) <= 111
    assert requests_until("log_fail", 0.10, 200, 150) <= 30


def test_at_the_limit_few_are_ever_decided() -> None:
    rng, bets = np.random.default_rng(11), MeanBets.of(300)
    failed, passed = np.zeros(300, bool), np.zeros(300, bool)
    for _ in range(1_000):
        bets.observe(LIMIT, (rng.random(300) < LIMIT.value).astype(np.float64))
        failed |= bets.log_fail() >= NEEDED
        passed |= bets.log_pass() >= NEEDED
    assert failed.mean() <= 0.05
    assert passed.mean() <= 0.05


def test_a_model_that_breaks_after_long_health_is_found_soon() -> None:
    bets = bets_after([0.0] * 5_000)
    while bets.log_fail() < NEEDED:
        bets.observe(LIMIT, 1.0)
    assert bets.above.wealth.observed <= 5_007


def test_a_pass_needs_the_crowded_windows_as_well_as_the_quiet_ones() -> None:
    """Wrong in crowded windows alone, one in 400: few windows, yet a fifth of all requests."""
    bets = MeanBets()
    for number in range(2_000):
        bets.observe(LIMIT, *((1.0, 100.0) if number % 400 == 399 else (0.0, 1.0)))
    assert bets.log_pass() < NEEDED
    plain = bets_after([float(number % 400 == 399) for number in range(2_000)])
    assert plain.log_pass() >= NEEDED


@given(st.lists(shares, max_size=30), st.lists(shares, max_size=30))
def test_what_two_observers_saw_adds_up(one: list[float], other: list[float]) -> None:
    both, added = bets_after(one + other), bets_after(one)
    added.add(bets_after(other))
    assert added.below.wealth.observed == both.below.wealth.observed
    assert added.log_pass() == pytest.approx(both.log_pass())
    # Of the later begins, the weights are those that each observer gave them.
    assert np.isfinite(added.log_fail())
    assert added.above.wealth.log_from_first() == pytest.approx(both.above.wealth.log_from_first())


@given(st.lists(shares, min_size=1, max_size=40))
def test_all_begins_of_a_bet_are_one_number(observations: list[float]) -> None:
    stake = 0.7
    wealth, factors = Wealth.of(1), [1.0 + stake * (x - 0.3) for x in observations]
    for factor in factors:
        wealth.observe(np.log([factor]))
    by_hand = sum(
        math.prod(factors[begin:]) / ((begin + 1) * (begin + 2)) for begin in range(len(factors))
    )
    assert math.exp(wealth.later[0]) == pytest.approx(by_hand)


# ---------------------------------------------------------------- spells


def next_event(spell: Spell, at_s: int, expected: float = 0.125, *, own: bool) -> SpellShare | None:
    ended = spell.end(at_s * S, 30 * S)
    spell.add(at_s * S, expected, is_candidate=own)
    return ended


def test_a_spell_is_over_after_a_quiet_time_or_its_longest() -> None:
    spell = Spell()
    assert next_event(spell, 0, own=True) is None
    assert next_event(spell, 9, 0.375, own=False) is None
    assert next_event(spell, 20, own=False) == SpellShare(0.5, 0.25)
    for second in (25, 34, 43, 49):
        assert next_event(spell, second, own=False) is None
    assert next_event(spell, 50, own=True) == SpellShare(0.0, 0.125)
    assert spell.end(60 * S, 30 * S) is None
    assert spell.end(61 * S, 30 * S) == SpellShare(1.0, 0.125)
    assert spell.end(99 * S, 30 * S) is None


def test_a_clock_that_is_set_back_ends_the_spell() -> None:
    spell = Spell()
    next_event(spell, 3_600, own=True)
    assert next_event(spell, 3_590, own=False) is None
    assert next_event(spell, 0, own=False) == SpellShare(0.5, 0.125)


@given(expected=st.floats(0.01, 0.99), ratio=st.floats(1.0, 3.0))
def test_a_spell_that_falls_by_its_share_pays_one_on_average(expected: float, ratio: float) -> None:
    fair = expected * ratio / (expected * ratio + 1.0 - expected)
    own, other = SplitBets(), SplitBets()
    own.observe(1.0, expected, ratio)
    other.observe(0.0, expected, ratio)
    mean = fair * np.exp(own.more.first) + (1.0 - fair) * np.exp(other.more.first)
    assert mean == pytest.approx(1.0)


@pytest.mark.parametrize("expected", [0.0, 1.0])
def test_a_spell_of_a_side_that_alone_got_requests_says_nothing(expected: float) -> None:
    bets = SplitBets()
    bets.observe(expected, expected)
    assert bets.log_fail() == pytest.approx(0.0)


def test_a_candidate_that_has_all_events_fails_after_a_few_spells() -> None:
    bets = SplitBets()
    while bets.log_fail() < NEEDED:
        bets.observe(1.0, 0.1)
    assert bets.observed == 3

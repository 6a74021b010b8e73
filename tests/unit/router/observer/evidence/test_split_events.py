"""Formulas B and C: events of the split, looked at after each of them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.counts import Events
from coalmine_router.observer.evidence.split_events import (
    _MORE,
    _OFF,
    expected_events,
    log_more,
    log_off_split,
)
from tests.doubles.sequential_runs import first

# Of events, while the candidate's weight is moved from 1 % to 50 %: 600 at each step.
STEPS = np.repeat([0.01, 0.05, 0.10, 0.25, 0.50], 600)


def logs(is_candidate: Any, weights: Any, deltas: tuple[float, ...]) -> Any:
    """Return the logarithm of the e-value after each event: (runs, events)."""
    total = np.full(is_candidate.shape, -np.inf)
    for delta in deltas:
        per_event = is_candidate * delta - np.log1p(weights * math.expm1(delta))
        np.logaddexp(total, per_event.cumsum(axis=1), out=total)
    return total - math.log(len(deltas))


def drawn(ratio: float, runs: int, seed: int, weights: Any = STEPS) -> Any:
    """Return whose the events are where the candidate has `ratio` times the rate of stable."""
    share = weights * ratio / (weights * ratio + 1 - weights)
    return np.random.default_rng(seed).random((runs, len(weights))) < share


@pytest.mark.parametrize(("ratio", "median"), [(2, 675), (3, 235), (5, 85)])
def test_a_candidate_with_more_errors_is_found_after_so_many_events(
    ratio: float, median: int
) -> None:
    until_10_percent = STEPS[:1_800]
    seen = drawn(ratio, 2_000, 21, until_10_percent)
    found = first(logs(seen, until_10_percent, _MORE) >= math.log(20))
    assert np.median(found) == pytest.approx(median, rel=0.1)


def test_equal_rates_seldom_fail_while_weights_move() -> None:
    crossed = logs(drawn(1, 1_000, 22), STEPS, _MORE) >= math.log(20)
    assert crossed.any(axis=1).mean() <= 0.05


def test_equal_rates_seldom_fail_where_the_split_is_drawn_in_blocks() -> None:
    # As the router draws it: exactly 10 of every 100, in random order; every request an event.
    chance = np.random.default_rng(23)
    block = np.arange(100) < 10
    blocks = chance.permuted(np.broadcast_to(block, (300 * 20, 100)), axis=1).reshape(300, 2_000)
    for deltas, alpha in ((_MORE, 0.05), (_OFF, 0.01)):
        crossed = logs(blocks, 0.1, deltas) >= math.log(1 / alpha)
        assert crossed.any(axis=1).mean() <= alpha


def test_a_kept_split_seldom_alarms() -> None:
    crossed = logs(drawn(1, 300, 24), STEPS, _OFF) >= math.log(100)
    assert crossed.any(axis=1).mean() <= 0.01


@pytest.mark.parametrize("odds", [1.3, 1 / 1.3])
def test_a_split_that_is_off_in_either_direction_alarms(odds: float) -> None:
    weights = np.full(10_000, 0.1)
    crossed = logs(drawn(odds, 50, 25, weights), weights, _OFF) >= math.log(100)
    assert crossed.any(axis=1).all()


# ---------------------------------------------------------------- from counts


def counted(is_candidate: Any, weights: Any) -> Events:
    events = Events()
    for own, weight in zip(is_candidate, weights, strict=True):
        candidate_bp = round(weight * 10_000)
        events.add((candidate_bp, 10_000 - candidate_bp), is_candidate=bool(own))
    return events


def test_counts_by_weight_say_what_the_events_say() -> None:
    own = drawn(2, 1, 26)
    events = counted(own[0], STEPS)
    assert log_more(events) == pytest.approx(logs(own, STEPS, _MORE)[0, -1])
    assert log_off_split(events) == pytest.approx(logs(own, STEPS, _OFF)[0, -1])
    assert expected_events(events) == pytest.approx(STEPS.sum())


def test_events_of_which_one_side_had_no_chance_say_nothing() -> None:
    events = Events({(0, 10_000): [50, 0], (10_000, 0): [70, 70], (0, 0): [3, 1]})
    assert (log_more(events), log_off_split(events)) == pytest.approx((0.0, 0.0))
    assert log_more(Events()) == 0.0


def test_the_weights_of_other_variants_do_not_matter() -> None:
    # 5 % and 15 % beside a third variant's 80 %: of the two, a quarter is the candidate's.
    assert log_more(Events({(500, 1_500): [40, 20]})) == pytest.approx(
        log_more(Events({(2_500, 7_500): [40, 20]}))
    )


pairs = st.tuples(st.integers(1, 9_999), st.integers(1, 9_999))
seen = st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda each: [sum(each), each[0]])


@given(st.dictionaries(pairs, seen, max_size=5), pairs)
def test_one_more_event_of_the_candidate_is_more_evidence(
    by_weights: dict[tuple[int, int], list[int]], pair: tuple[int, int]
) -> None:
    total, own = by_weights.get(pair, [0, 0])
    before = log_more(Events(by_weights))
    assert log_more(Events({**by_weights, pair: [total + 1, own + 1]})) > before
    assert log_more(Events({**by_weights, pair: [total + 1, own]})) < before

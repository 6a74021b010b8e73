"""Formula C: whether requests were split by the weights, looked at after each of them."""

import math
from typing import Any

import numpy as np
import pytest

from coalmine_router.observer.evidence.counts import Events
from coalmine_router.observer.evidence.split_events import (
    _OFF,
    log_off_split,
)

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


def test_a_split_that_is_drawn_in_blocks_seldom_alarms() -> None:
    # As the router draws it: exactly 10 of every 100, in random order; every request an event.
    chance = np.random.default_rng(23)
    block = np.arange(100) < 10
    blocks = chance.permuted(np.broadcast_to(block, (300 * 20, 100)), axis=1).reshape(300, 2_000)
    crossed = logs(blocks, 0.1, _OFF) >= math.log(100)
    assert crossed.any(axis=1).mean() <= 0.01


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
    assert log_off_split(events) == pytest.approx(logs(own, STEPS, _OFF)[0, -1])
    assert events.expected == pytest.approx(STEPS.sum())


def test_events_of_which_one_side_had_no_chance_say_nothing() -> None:
    events = Events({(0, 10_000): [50, 0], (10_000, 0): [70, 70], (0, 0): [3, 1]})
    assert log_off_split(events) == pytest.approx(0.0)
    assert log_off_split(Events()) == 0.0


def test_the_weights_of_other_variants_do_not_matter() -> None:
    # 5 % and 15 % beside a third variant's 80 %: of the two, a quarter is the candidate's.
    assert log_off_split(Events({(500, 1_500): [40, 20]})) == pytest.approx(
        log_off_split(Events({(2_500, 7_500): [40, 20]}))
    )

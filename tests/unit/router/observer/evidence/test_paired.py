"""The paired test: differences between a candidate and the noise, looked at after each."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.paired import STAKES, _log_gains, log_above, log_below
from tests.doubles.sequential_runs import first, mixed

NEEDED = math.log(20)

# By confseq 0.0.11's diversified_betting_mart of x = (d + 1)/2 with our stakes: worse, same,
# better, the bound, and both directions. Made by tests/conformance/confseq_figures.py.
CONFSEQ = [
    (6, 90, 2, 0.01, 0.2051301129921992, -0.6686678335259875),
    (30, 400, 0, 0.01, 14.008792108504405, -1.8948459009370628),
    (3, 10, 9, -0.2, -0.635765214043199, -0.12860570280780728),
    (0, 500, 0, 0.01, -0.7572244741315433, 2.908600616887292),
]


def looked(worse: float, better: float, runs: int, looks: int, seed: int) -> tuple[Any, Any]:
    """Return ln e against "at most 1 %" and "at least 1 %" after each look, of seeded runs."""
    drawn = np.random.default_rng(seed).random((runs, looks))
    places = np.where(drawn < worse, 0, np.where(drawn < worse + better, 2, 1))
    return mixed(_log_gains(0.01), places), mixed(_log_gains(-0.01)[::-1], places)


@pytest.mark.parametrize("better", [0.0, 0.05, 0.3])
def test_just_the_allowed_difference_seldom_fails_or_passes(better: float) -> None:
    above, below = looked(better + 0.01, better, 400, 3_000, 31)
    assert (above >= NEEDED).any(axis=1).mean() <= 0.05
    assert (below >= NEEDED).any(axis=1).mean() <= 0.05


def test_an_output_that_always_differs_from_itself_never_fails() -> None:
    above, below = looked(0.0, 0.0, 1, 3_000, 32)
    assert above.max() < 0.0
    assert first(below >= NEEDED)[0] == 511


@pytest.mark.parametrize(
    ("worse", "better", "median"), [(0.05, 0.0, 182), (0.1, 0.0, 87), (0.1, 0.05, 590)]
)
def test_a_difference_beyond_the_noise_is_found_after_so_many_requests(
    worse: float, better: float, median: int
) -> None:
    above, _ = looked(worse, better, 400, 4_000, 33)
    assert np.median(first(above >= NEEDED)) == pytest.approx(median, rel=0.1)


@pytest.mark.parametrize(("worse", "same", "better", "bound", "above", "below"), CONFSEQ)
def test_it_agrees_with_confseq(
    worse: int, same: int, better: int, bound: float, above: float, below: float
) -> None:
    counts = np.array([worse, same, better], dtype=float)
    assert float(log_above(counts, bound)) == pytest.approx(above, rel=1e-9)
    assert float(log_below(counts, bound)) == pytest.approx(below, rel=1e-9)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=50),
    st.sampled_from([-0.3, 0.0, 0.01, 0.5]),
)
def test_a_difference_counted_in_parts_is_never_bolder_than_itself(
    differences: list[float], bound: float
) -> None:
    counted = Differences()
    for each in differences:
        counted.add(each)
    counts = np.array([counted.worse, counted.same, counted.better])
    for found, d, m in (
        (log_above(counts, bound), np.array(differences), bound),
        (log_below(counts, bound), -np.array(differences), -bound),
    ):
        itself = np.log1p(np.outer((d - m) / (1 + m), STAKES)).sum(axis=0)
        assert found <= np.log(np.exp(itself).mean()) + 1e-9


@given(st.tuples(*[st.floats(0, 1e6)] * 3), st.floats(-0.9, 0.9), st.floats(0.001, 0.05))
def test_the_higher_the_bound_the_less_speaks_against_it(
    counts: tuple[float, ...], bound: float, step: float
) -> None:
    counted = np.array(counts)
    assert log_above(counted, bound + step) <= log_above(counted, bound) + 1e-6
    assert log_below(counted, bound + step) >= log_below(counted, bound) - 1e-6

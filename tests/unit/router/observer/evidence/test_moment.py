"""What was answered together counts as one."""

import numpy as np
import pytest

from coalmine_router.observer.evidence.moment import LASTS_NS_MIN, Moment
from coalmine_router.observer.evidence.paired import log_above

MS = 10**6
LOG_NEEDED = np.log(20)


def test_requests_of_one_moment_count_as_their_mean() -> None:
    moment = Moment()
    assert moment.add({"scores": 1.0}, at_ns=0, took_ns=MS) == {}
    assert moment.add({"scores": 0.0}, at_ns=10 * MS, took_ns=MS) == {}
    assert moment.add({"scores": 1.0}, at_ns=LASTS_NS_MIN, took_ns=MS) == {"scores": 0.5}
    assert moment.add({}, at_ns=3 * LASTS_NS_MIN, took_ns=MS) == {"scores": 1.0}


def test_an_output_that_a_request_does_not_have_is_no_different_in_it() -> None:
    moment = Moment()
    moment.add({"scores": 1.0, "label": 1.0}, at_ns=0, took_ns=0)
    moment.add({"scores": 1.0}, at_ns=1, took_ns=0)
    assert moment.add({}, at_ns=LASTS_NS_MIN, took_ns=0) == {"scores": 1.0, "label": 0.5}


def test_a_slow_answer_makes_a_longer_moment() -> None:
    moment = Moment()
    moment.add({"scores": 1.0}, at_ns=0, took_ns=400 * MS)
    assert moment.add({"scores": 0.0}, at_ns=799 * MS, took_ns=400 * MS) == {}
    assert moment.add({"scores": 0.0}, at_ns=800 * MS, took_ns=400 * MS) == {"scores": 0.5}


def test_a_clock_that_is_set_back_holds_up_nothing() -> None:
    moment = Moment()
    moment.add({"scores": 1.0}, at_ns=3_600 * 10**9, took_ns=0)
    assert moment.add({"scores": 0.0}, at_ns=5, took_ns=0) == {"scores": 1.0}


def test_outputs_that_are_counted_together_stay_within_their_bounds() -> None:
    moment = Moment()
    for _ in range(40):
        moment.add({"(other)": 1.0}, at_ns=1, took_ns=0)
    moment.requests = 4  # several outputs of each request
    assert moment.add({}, at_ns=LASTS_NS_MIN * 2, took_ns=0) == {"(other)": 1.0}


@pytest.mark.parametrize(("rate", "false_fails_max"), [(300, 0.05), (1_500, 0.05)])
def test_rows_that_depend_on_their_batch_do_not_fail_a_model_that_is_the_same(
    rate: int, false_fails_max: float
) -> None:
    """Reference, its second answer and the candidate each quantise by their own batch of 20 ms."""
    rng = np.random.default_rng(3)
    by_request, by_moment = zip(*(_judged(rng, rate) for _ in range(150)), strict=True)
    assert np.mean(by_request) > 0.25, "or moments would be for nothing"
    assert np.mean(by_moment) <= false_fails_max


def _judged(rng: np.random.Generator, rate: int) -> tuple[bool, bool]:
    at_s = np.cumsum(rng.exponential(1 / rate, size=1_500))
    reference, noise, candidate = (_scale(rng, at_s) for _ in range(3))
    differences = (candidate != reference).astype(float) - (noise != reference)
    moment, means = Moment(), []
    for at, difference in zip(at_s, differences, strict=True):
        means += moment.add({"y": difference}, at_ns=int(at * 1e9), took_ns=5 * MS).values()
    return _fails(differences), _fails(np.array(means))


def _scale(rng: np.random.Generator, at_s: np.ndarray) -> np.ndarray:
    batch = ((at_s + rng.uniform(0, 0.02)) // 0.02).astype(int)
    return rng.integers(0, 4, size=batch.max() + 1)[batch]


def _fails(differences: np.ndarray) -> bool:
    parts = [np.maximum(differences, 0), 1 - abs(differences), np.maximum(-differences, 0)]
    counts = np.stack([part.cumsum() for part in parts], axis=-1)
    return bool(log_above(counts, 0.01).max() >= LOG_NEEDED)

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
    assert moment.add({"scores": 0.0}, at_ns=LASTS_NS_MIN - 1, took_ns=MS) == {}
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
    assert moment.add({"scores": 0.0}, at_ns=1_599 * MS, took_ns=0) == {}
    assert moment.add({"scores": 0.0}, at_ns=1_600 * MS, took_ns=0) == {"scores": 0.5}


def test_the_slowest_answer_says_how_long_a_moment_lasts() -> None:
    moment = Moment()
    moment.add({"scores": 1.0}, at_ns=0, took_ns=MS)
    moment.add({"scores": 1.0}, at_ns=LASTS_NS_MIN - 1, took_ns=100 * MS)
    assert moment.add({"scores": 1.0}, at_ns=399 * MS, took_ns=MS) == {}
    assert moment.add({"scores": 1.0}, at_ns=400 * MS, took_ns=MS) == {"scores": 1.0}


def test_a_clock_that_is_set_back_holds_up_nothing() -> None:
    moment = Moment()
    moment.add({"scores": 1.0}, at_ns=3_600 * 10**9, took_ns=0)
    assert moment.add({"scores": 0.0}, at_ns=5, took_ns=0) == {"scores": 1.0}


def test_what_was_answered_a_little_earlier_belongs_to_the_moment() -> None:
    moment = Moment()
    moment.add({"scores": 1.0}, at_ns=201 * MS, took_ns=200 * MS)
    assert moment.add({"scores": 0.0}, at_ns=7 * MS, took_ns=5 * MS) == {}
    assert moment.add({}, at_ns=1_001 * MS, took_ns=5 * MS) == {"scores": 0.5}


def test_names_of_outputs_do_not_make_a_moment_grow() -> None:
    moment = Moment()
    for each in range(1_000):
        moment.add({f"output {each}": 1.0}, at_ns=1, took_ns=0)
    assert len(moment.add({}, at_ns=LASTS_NS_MIN * 2, took_ns=0)) == 256


def test_outputs_that_are_counted_together_stay_within_their_bounds() -> None:
    moment = Moment()
    for _ in range(40):
        moment.add({"(other)": 1.0}, at_ns=1, took_ns=0)
    moment.requests = 4  # several outputs of each request
    assert moment.add({}, at_ns=LASTS_NS_MIN * 2, took_ns=0) == {"(other)": 1.0}


@pytest.mark.parametrize("slow", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("rate", [300, 1_500])
def test_rows_that_depend_on_their_batch_do_not_fail_a_model_that_is_the_same(
    rate: int, slow: float
) -> None:
    """Reference, its second answer and the candidate each quantise by their own batch of 20 ms.

    A share of the answers is `slow`, and so is compared after those of later requests.
    """
    rng = np.random.default_rng(3)
    by_request, by_moment = zip(*(_judged(rng, rate, slow) for _ in range(100)), strict=True)
    assert np.mean(by_request) > 0.25, "or moments would be for nothing"
    assert np.mean(by_moment) <= 0.05


def _judged(rng: np.random.Generator, rate: int, slow: float) -> tuple[bool, bool]:
    at_s = np.cumsum(rng.exponential(1 / rate, size=1_500))
    scales, waits_ns = zip(*(_batched(rng, at_s) for _ in range(3)), strict=True)
    reference, noise, candidate = scales
    differences = (candidate != reference).astype(float) - (noise != reference)
    means: list[float] = []
    moment = Moment()
    took_ns = np.where(rng.random(at_s.size) < slow, 200 * MS, np.max(waits_ns, axis=0) + MS)
    for at, took, difference in zip(at_s, took_ns.tolist(), differences, strict=True):
        means += moment.add({"y": difference}, at_ns=int(at * 1e9) + took, took_ns=took).values()
    return _fails(differences), _fails(np.array(means))


def _batched(rng: np.random.Generator, at_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each request's scale, its batch's, and how long it waited for that to be full."""
    place = (at_s + rng.uniform(0, 0.02)) / 0.02
    batch = place.astype(int)
    scales = rng.integers(0, 4, size=batch.max() + 1)[batch]
    return scales, ((1 - place % 1) * 20 * MS).astype(int)


def _fails(differences: np.ndarray) -> bool:
    parts = [np.maximum(differences, 0), 1 - abs(differences), np.maximum(-differences, 0)]
    counts = np.stack([part.cumsum() for part in parts], axis=-1)
    return bool(log_above(counts, 0.01).max() >= LOG_NEEDED)

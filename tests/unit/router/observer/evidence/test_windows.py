"""Windows of time as observations, and requests that were never answered."""

import math
from collections.abc import Iterable

import pytest

from coalmine_router.observer.evidence.betting.mean_bets import Limit
from coalmine_router.observer.evidence.betting.windows import WindowedMean, WindowTerms

S = 10**9
NEEDED = math.log(20)
A_SECOND = WindowTerms(Limit(0.01), S)
EACH = WindowTerms(Limit(0.01))


def seen(shares: Iterable[float | None], terms: WindowTerms = A_SECOND) -> WindowedMean:
    """Return what requests have shown, 50 a second."""
    windows = WindowedMean()
    for number, share in enumerate(shares):
        windows.add(share, "", S + number * S // 50, terms)
    return windows


def log_fail(windows: WindowedMean) -> float:
    return float(windows.bets.log_fail())


def log_pass(windows: WindowedMean) -> float:
    return float(windows.bets.log_pass())


def test_the_requests_of_a_second_are_one_observation() -> None:
    windows = seen([0.0] * 500)
    assert (windows.windows, len(windows.open)) == (9, 1)
    assert windows.lasted_ns == S * 499 // 50


def test_each_request_is_one_where_they_are_independent() -> None:
    windows = seen([0.0] * 500, EACH)
    assert (windows.windows, windows.open) == (500, {})


def test_a_burst_is_one_observation_however_many_it_takes() -> None:
    burst = [0.0] * 3_000 + [1.0] * 50 + [0.0]
    assert log_fail(seen(burst)) < NEEDED
    assert log_fail(seen(burst, EACH)) >= NEEDED


def test_a_candidate_that_is_always_wrong_fails_in_the_third_second() -> None:
    assert log_fail(seen([1.0] * 51)) < NEEDED
    assert log_fail(seen([1.0] * 101)) >= NEEDED


def test_each_segment_has_windows_of_its_own() -> None:
    windows = WindowedMean()
    for number in range(100):
        windows.add(0.0, f"tenant-{number % 2}", S + number * S // 50, A_SECOND)
    windows.add(0.0, "tenant-0", 4 * S, A_SECOND)
    assert windows.windows == 4


def test_segments_over_the_bound_share_a_window() -> None:
    windows = WindowedMean()
    for number in range(200):
        windows.add(0.0, f"tenant-{number}", S, A_SECOND)
    assert len(windows.open) == 51
    assert windows.open[""].compared == 150


def test_a_clock_that_is_set_back_closes_the_window() -> None:
    windows = WindowedMean()
    windows.add(0.0, "", 3_600 * S, A_SECOND)
    windows.add(0.0, "", 3_599 * S, A_SECOND)
    assert windows.windows == 0
    windows.add(0.0, "", S, A_SECOND)
    assert windows.windows == 1


@pytest.mark.parametrize("terms", [A_SECOND, EACH])
def test_what_is_not_answered_helps_neither_word(terms: WindowTerms) -> None:
    answered = [0.0] * 30_000
    assert log_pass(seen(answered, terms)) >= NEEDED
    silent = [None if number % 20 == 0 else 0.0 for number in range(30_000)]
    found = seen(silent, terms)
    assert found.unanswered == 1_500
    assert log_pass(found) < NEEDED
    assert log_fail(found) < NEEDED


def test_who_answers_nothing_is_no_mismatch() -> None:
    found = seen([None] * 3_000)
    assert found.bets.above.wealth.observed == 0
    assert log_fail(found) == pytest.approx(0.0)
    assert log_pass(found) < 0


def test_what_two_observers_saw_adds_up() -> None:
    one, other = seen([0.0] * 500), seen([None, 1.0] * 250)
    one.add_all(other)
    assert (one.windows, one.unanswered) == (18, 250)
    assert one.first_ns == S

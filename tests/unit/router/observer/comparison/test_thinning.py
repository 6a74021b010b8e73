"""Which comparisons are made when not all can be."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.comparison.thinning import Thinning, share_at


def drawn(share: float, times: int, seed: int = 7) -> list[bool]:
    thinning = Thinning(random.Random(seed).random)
    return [thinning.draw(share) for _ in range(times)]


def test_the_share_falls_from_all_to_nothing_as_the_backlog_fills() -> None:
    fills = [each / 1_000 for each in range(1_101)]
    shares = [share_at(fill) for fill in fills]
    assert shares[:251] == [1.0] * 251
    assert all(before >= after for before, after in itertools.pairwise(shares))
    assert shares[-101:] == [0.0] * 101


@pytest.mark.parametrize("overload", [1.5, 3, 20, 500])
def test_the_backlog_comes_to_rest_below_the_brim_where_as_much_is_taken_as_is_done(
    overload: float,
) -> None:
    waiting, most, done_a_turn = 0.0, 4_096, 10.0
    taken_a_turn = []
    for _ in range(20_000):
        taken_a_turn.append(done_a_turn * overload * share_at(waiting / most))
        waiting = max(0.0, waiting + taken_a_turn[-1] - done_a_turn)
    assert waiting < 0.85 * most
    assert taken_a_turn[-1] == pytest.approx(done_a_turn, rel=0.05)


def test_nothing_of_a_whole_share_and_all_of_none_is_left_out() -> None:
    assert all(drawn(1.0, 1_000))
    assert not any(drawn(0.0, 1_000))


@given(st.sampled_from([1 / 16, 0.125, 0.25, 0.5, 0.75]), st.integers(0, 2**32))
def test_every_block_of_sixteen_has_its_share_to_the_one(share: float, seed: int) -> None:
    taken = drawn(share, 1_600, seed)
    blocks = {sum(taken[at : at + 16]) for at in range(0, 1_600, 16)}
    assert blocks == {16 * share}


@pytest.mark.parametrize("period", [2, 3, 4, 8, 16, 89])
def test_requests_that_come_in_a_pattern_are_taken_as_often_as_the_others(period: int) -> None:
    taken = drawn(0.25, 200 * period * 16)
    for place in range(min(period, 4)):
        of_place = taken[place::period]
        assert sum(of_place) / len(of_place) == pytest.approx(0.25, abs=0.04)


def test_there_are_no_long_runs_of_requests_that_are_left_out() -> None:
    longest, run = 0, 0
    for is_taken in drawn(0.25, 10_000):
        run = 0 if is_taken else run + 1
        longest = max(longest, run)
    assert longest <= 24


def test_a_share_that_changes_within_a_block_holds_at_once() -> None:
    thinning = Thinning(random.Random(7).random)
    taken = [thinning.draw(0.9 if number % 2 else 0.1) for number in range(40_000)]
    assert sum(taken[1::2]) / 20_000 == pytest.approx(0.9, abs=0.01)
    assert sum(taken[::2]) / 20_000 == pytest.approx(0.1, abs=0.01)

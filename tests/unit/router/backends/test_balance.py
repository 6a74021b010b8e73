import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.backends.balance import less_loaded


@dataclass(frozen=True)
class At:
    name: int
    outstanding: int


def never() -> float:
    raise AssertionError("chance was drawn")


def test_with_one_address_no_chance_is_drawn() -> None:
    only = At(0, 9)
    assert less_loaded([only], never) is only


@given(loads=st.lists(st.integers(0, 50), min_size=2, max_size=20), seed=st.integers(0, 2**32))
def test_the_fullest_of_all_is_picked_only_where_others_are_as_full(
    loads: list[int], seed: int
) -> None:
    several = [At(n, load) for n, load in enumerate(loads)]
    chosen = less_loaded(several, random.Random(seed).random)
    assert chosen in several
    fullest = max(loads)
    assert chosen.outstanding < fullest or loads.count(fullest) > 1


@given(loads=st.lists(st.integers(0, 50), min_size=2, max_size=2), seed=st.integers(0, 2**32))
def test_of_two_the_emptier_is_always_picked(loads: list[int], seed: int) -> None:
    several = [At(n, load) for n, load in enumerate(loads)]
    assert less_loaded(several, random.Random(seed).random).outstanding == min(loads)


@given(highest=st.sampled_from([0.0, 0.999_999_999_999]), count=st.integers(2, 300))
def test_chance_at_its_ends_picks_two_that_are_there(highest: float, count: int) -> None:
    several = [At(n, 0) for n in range(count)]
    assert less_loaded(several, lambda: highest) in several


def test_equals_are_picked_equally_often() -> None:
    chance = random.Random(3).random
    several = [At(n, 1) for n in range(5)]
    picked = Counter(less_loaded(several, chance).name for _ in range(10_000))
    assert all(1_800 < picked[n] < 2_200 for n in range(5))


def test_calls_that_last_alike_spread_over_all_addresses() -> None:
    chance = random.Random(5).random
    outstanding = [0] * 10
    for _ in range(1_000):
        chosen = less_loaded([At(n, load) for n, load in enumerate(outstanding)], chance)
        outstanding[chosen.name] += 1
    assert max(outstanding) - min(outstanding) <= 6

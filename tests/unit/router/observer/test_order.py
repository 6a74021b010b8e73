"""Things come out in the order in which they were announced."""

import random

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.order import InOrder


def test_what_is_ready_early_waits_for_those_before_it() -> None:
    order: InOrder[str] = InOrder()
    first, second, third = (order.announce() for _ in range(3))
    assert order.ready(third, "third") == []
    assert order.ready(first, "first") == ["first"]
    assert order.ready(second, "second") == ["second", "third"]
    assert (len(order), order.out_of_turn) == (0, 0)


def test_over_the_bound_the_first_is_no_longer_waited_for() -> None:
    order: InOrder[int] = InOrder(waiting_max=2)
    turns = [order.announce() for _ in range(4)]
    assert order.ready(turns[1], 1) == [1], "0 has had its turn"
    assert order.ready(turns[3], 3) == []
    assert order.ready(turns[0], 0) == [0]
    assert order.out_of_turn == 1
    assert order.ready(turns[2], 2) == [2, 3]


@given(count=st.integers(1, 60), bound=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_everything_comes_out_once_and_in_order_within_the_bound(
    count: int, bound: int, seed: int
) -> None:
    order: InOrder[int] = InOrder(bound)
    turns = [order.announce() for _ in range(count)]
    out: list[int] = []
    for number in random.Random(seed).sample(range(count), count):
        out += order.ready(turns[number], number)
        assert len(order) <= max(bound, count - len(out))
    assert sorted(out) == list(range(count))
    assert len(order) == 0
    if bound >= count:
        assert out == list(range(count))

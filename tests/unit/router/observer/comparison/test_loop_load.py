"""How busy the loop is, and how many processes there may be."""

import pytest

from coalmine_router.observer.comparison.loop_load import LoopLoad, pool_size

SECOND_NS = 10**9


@pytest.mark.parametrize(("cores", "size"), [(1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_a_core_is_left_to_the_loop_where_there_are_two(cores: int, size: int) -> None:
    assert pool_size(cores) == size


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_it_finds_the_share_of_time_that_is_spent(share: float) -> None:
    load, each_ns = LoopLoad(), SECOND_NS // 1_000
    for number in range(1, 5_000):
        load.add_time(int(share * each_ns), number * each_ns)
    assert load.share(5 * SECOND_NS) == pytest.approx(share, rel=0.01)


def test_what_was_spent_some_seconds_ago_hardly_counts() -> None:
    load = LoopLoad()
    load.add_time(SECOND_NS, SECOND_NS)
    assert load.share(SECOND_NS) > 1
    assert load.share(4 * SECOND_NS) < 0.01


def test_it_takes_notice_of_a_burst_before_a_fifth_of_a_second_has_gone() -> None:
    load, now_ns = LoopLoad(), 0
    while load.share(now_ns) < 0.5:
        now_ns += 10**6
        load.add_time(10**6, now_ns)
    assert now_ns < SECOND_NS / 5

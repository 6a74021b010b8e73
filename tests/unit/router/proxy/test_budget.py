"""The retry budget: a fifth of the requests of ten seconds, and three at the least."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.proxy.budget import RetryBudget

START = 100_000


def counted(requests: int, second: int = START) -> RetryBudget:
    budget = RetryBudget()
    for _ in range(requests):
        budget.count_request(second)
    return budget


def taken(budget: RetryBudget, second: int, tries: int = 1_000) -> int:
    return sum(budget.take_retry(second) for _ in range(tries))


def test_three_second_attempts_are_always_there() -> None:
    assert taken(RetryBudget(), START) == 3
    assert taken(counted(1), START) == 3
    assert taken(RetryBudget(), 0) == 3


def test_of_many_requests_a_fifth_is_tried_again_and_none_more() -> None:
    assert taken(counted(19), START) == 3
    assert taken(counted(20), START) == 4
    assert taken(counted(24), START) == 4
    assert taken(counted(1_000), START) == 200


def test_looking_whether_there_is_one_left_takes_none() -> None:
    budget = counted(0)
    assert all(budget.has_retry_left(START) for _ in range(10))
    assert taken(budget, START) == 3
    assert not budget.has_retry_left(START)


def test_what_was_taken_comes_back_after_ten_seconds_and_not_before() -> None:
    budget = counted(0)
    assert taken(budget, START) == 3
    assert not budget.has_retry_left(START + 9)
    assert taken(budget, START + 10) == 3


def test_requests_older_than_ten_seconds_earn_nothing() -> None:
    assert taken(counted(100), START + 9) == 20
    assert taken(counted(100), START + 10) == 3


def test_after_a_long_silence_nothing_of_the_old_is_left() -> None:
    budget = counted(100)
    assert taken(budget, START) == 20
    assert taken(budget, START + 1_000_000) == 3


SECONDS = st.integers(0, 4) | st.integers(0, 15)
STEPS = st.lists(st.tuples(SECONDS, st.integers(0, 40), st.integers(0, 20)), max_size=40)


@given(STEPS)
def test_in_no_ten_seconds_are_more_tried_again_than_a_fifth_or_three(
    steps: list[tuple[int, int, int]],
) -> None:
    budget = RetryBudget()
    requests: list[int] = []
    retries: list[int] = []
    now = START
    for later, come, fail in steps:
        now += later
        for _ in range(come):
            budget.count_request(now)
            requests.append(now)
        for _ in range(fail):
            earned = max(3, sum(second > now - 10 for second in requests) / 5)
            used = sum(second > now - 10 for second in retries)
            is_taken = budget.take_retry(now)
            assert is_taken == (used + 1 <= earned), "exactly as much as is earned"
            if is_taken:
                retries.append(now)

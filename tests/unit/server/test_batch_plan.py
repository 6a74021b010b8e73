from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_server.batch_plan import Plan, next_batch


@dataclass(frozen=True)
class Item:
    rows: int = 1
    shape_key: str = "a"
    arrived_ns: int = 0
    deadline_ns: int | None = None


def plan(*items: Item, now_ns: int = 0, rows_max: int = 4, max_delay_ns: int = 10) -> Plan[Item]:
    return next_batch(items, now_ns=now_ns, rows_max=rows_max, max_delay_ns=max_delay_ns)


def test_an_empty_queue_has_nothing_to_do_and_nothing_to_wait_for() -> None:
    assert plan() == Plan()


def test_a_request_waits_for_others_until_its_delay_is_over() -> None:
    only = Item(arrived_ns=5)
    assert plan(only, now_ns=14) == Plan(look_again_ns=15)
    assert plan(only, now_ns=15) == Plan((only,))


def test_without_a_delay_whatever_waits_goes_at_once() -> None:
    first, second = Item(), Item(arrived_ns=1)
    assert plan(first, second, now_ns=1, max_delay_ns=0).batch == (first, second)


def test_a_full_batch_goes_before_its_delay_is_over() -> None:
    items = [Item(rows=2), Item(rows=2)]
    assert plan(*items).batch == tuple(items)


def test_rows_are_counted_and_not_requests() -> None:
    big, small = Item(rows=3), Item(rows=1)
    assert plan(big, small, Item(rows=1)).batch == (big, small)


def test_a_request_that_does_not_fit_closes_the_batch_and_is_not_overtaken() -> None:
    first, big, small = Item(rows=2), Item(rows=3), Item(rows=1)
    assert plan(first, big, small).batch == (first,)


def test_requests_of_different_shapes_never_share_a_batch() -> None:
    one, other, again = Item(), Item(shape_key="b"), Item()
    assert plan(one, other, again, now_ns=10).batch == (one, again)


def test_a_full_batch_of_another_shape_goes_before_an_older_one_that_is_not_due() -> None:
    waits, full = Item(), Item(rows=4, shape_key="b")
    assert plan(waits, full).batch == (full,)


def test_of_two_that_are_due_the_one_with_the_oldest_request_goes_first() -> None:
    old, full = Item(), Item(rows=4, shape_key="b", arrived_ns=3)
    assert plan(old, full, now_ns=10).batch == (old,)


def test_a_request_whose_deadline_passed_is_expired_and_runs_in_no_batch() -> None:
    late, fine = Item(deadline_ns=10), Item(deadline_ns=11)
    assert plan(late, fine, now_ns=10) == Plan((fine,), (late,))


def test_a_model_without_a_batch_dimension_runs_each_request_alone() -> None:
    first, second = Item(), Item()
    assert plan(first, second, rows_max=1).batch == (first,)


items = st.builds(
    Item,
    rows=st.integers(1, 4),
    shape_key=st.sampled_from("abc"),
    arrived_ns=st.integers(0, 50),
    deadline_ns=st.none() | st.integers(0, 80),
)


@given(st.lists(items, max_size=24), st.integers(50, 90), st.sampled_from([0, 10, 100]))
def test_any_plan_keeps_the_limits_and_forgets_nobody(
    found: list[Item], now_ns: int, delay_ns: int
) -> None:
    queue = sorted(found, key=lambda each: each.arrived_ns)
    made = plan(*queue, now_ns=now_ns, max_delay_ns=delay_ns)
    alive = [each for each in queue if each.deadline_ns is None or each.deadline_ns > now_ns]
    assert sum(each.rows for each in made.batch) <= 4
    assert len({each.shape_key for each in made.batch}) <= 1
    assert all(each.deadline_ns is not None and each.deadline_ns <= now_ns for each in made.expired)
    if made.batch:
        of_shape = [each for each in alive if each.shape_key == made.batch[0].shape_key]
        assert list(made.batch) == of_shape[: len(made.batch)], "in order of arrival, no gap"
    elif alive:
        assert made.look_again_ns == alive[0].arrived_ns + delay_ns
        assert made.look_again_ns > now_ns, "nothing due is left waiting"


@pytest.mark.parametrize("delay_ns", [0, 10])
def test_expired_requests_alone_leave_nothing_to_wait_for(delay_ns: int) -> None:
    late = Item(deadline_ns=0)
    assert plan(late, max_delay_ns=delay_ns) == Plan((), (late,))

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_server.batching.batch_plan import BatchPlan, TakeResult


@dataclass(frozen=True, eq=False)
class Item:
    rows: int = 1
    shape_key: str = "a"
    arrived_ns: int = 0
    deadline_ns: int | None = None
    priority: int = 0


def line(*items: Item, rows_max: int = 4, max_delay_ns: int = 10) -> BatchPlan[Item]:
    made: BatchPlan[Item] = BatchPlan(rows_max=rows_max, max_delay_ns=max_delay_ns)
    for item in items:
        made.add(item)
    return made


def take(
    *items: Item, now_ns: int = 0, rows_max: int = 4, max_delay_ns: int = 10
) -> TakeResult[Item]:
    return line(*items, rows_max=rows_max, max_delay_ns=max_delay_ns).take(now_ns)


def test_an_empty_line_has_nothing_to_do_and_nothing_to_wait_for() -> None:
    assert take() == TakeResult()
    assert not line()


def test_a_request_waits_for_others_until_its_delay_is_over() -> None:
    only = Item(arrived_ns=5)
    assert take(only, now_ns=14) == TakeResult(next_due_ns=15)
    assert take(only, now_ns=15) == TakeResult((only,))


def test_without_a_delay_whatever_waits_goes_at_once() -> None:
    first, second = Item(), Item(arrived_ns=1)
    assert take(first, second, now_ns=1, max_delay_ns=0).batch == (first, second)


def test_a_full_batch_goes_before_its_delay_is_over() -> None:
    items = [Item(rows=2), Item(rows=2)]
    assert take(*items).batch == tuple(items)


def test_the_request_that_fills_a_batch_is_told_from_those_that_do_not() -> None:
    waiting = line()
    fills = [waiting.add(Item(rows=2)), waiting.add(Item(rows=3, shape_key="b"))]
    assert [*fills, waiting.add(Item(rows=2))] == [False, False, True]


def test_rows_are_counted_and_not_requests() -> None:
    big, small = Item(rows=3), Item(rows=1)
    assert take(big, small, Item(rows=1)).batch == (big, small)


def test_a_request_that_does_not_fit_closes_the_batch_and_is_not_overtaken() -> None:
    first, big, small = Item(rows=2), Item(rows=3), Item(rows=1)
    assert take(first, big, small).batch == (first,)


def test_requests_of_different_shapes_never_share_a_batch() -> None:
    one, other, again = Item(), Item(shape_key="b"), Item()
    assert take(one, other, again, now_ns=10).batch == (one, again)


def test_a_full_batch_of_another_shape_goes_before_an_older_one_that_is_not_due() -> None:
    waits, full = Item(), Item(rows=4, shape_key="b")
    assert take(waits, full).batch == (full,)


def test_of_two_that_are_due_the_one_with_the_oldest_request_goes_first() -> None:
    old, full = Item(), Item(rows=4, shape_key="b", arrived_ns=3)
    assert take(full, old, now_ns=10).batch == (old,)


def test_a_higher_priority_goes_first_and_none_at_all_goes_last() -> None:
    items = {key: Item(priority=key, rows=2) for key in (0, 5, 1)}
    assert take(*items.values(), now_ns=10).batch == (items[1], items[5])


def test_within_a_priority_the_oldest_goes_first() -> None:
    first, second, urgent = Item(priority=2), Item(priority=2), Item(priority=1)
    assert take(first, second, urgent, now_ns=10).batch == (urgent, first, second)


def test_the_group_with_the_highest_priority_goes_before_an_older_one() -> None:
    old, urgent = Item(), Item(shape_key="b", priority=7, arrived_ns=3)
    assert take(old, urgent, now_ns=13).batch == (urgent,)


def test_a_batch_is_due_by_its_oldest_request_whatever_that_one_has_for_a_priority() -> None:
    old, urgent = Item(rows=3), Item(rows=3, priority=1, arrived_ns=9)
    waiting = line(old, urgent, rows_max=8)
    assert waiting.take(9) == TakeResult(next_due_ns=10)
    assert waiting.take(10).batch == (urgent, old)


def test_a_request_whose_deadline_passed_is_told_before_a_batch_is_taken() -> None:
    late, fine = Item(deadline_ns=10), Item(deadline_ns=11)
    waiting = line(late, fine)
    assert waiting.take(10) == TakeResult(expired=(late,))
    assert waiting.take(10) == TakeResult((fine,))


def test_a_batch_that_was_full_only_by_an_expired_request_goes_on_waiting() -> None:
    late, fine = Item(rows=3, deadline_ns=5), Item(arrived_ns=2)
    waiting = line(late, fine)
    assert waiting.take(5).expired == (late,)
    assert waiting.take(5) == TakeResult(next_due_ns=12)


def test_a_request_that_left_is_in_no_batch_and_leaves_only_once() -> None:
    first, gone, third = Item(), Item(), Item(priority=1)
    waiting = line(first, gone, third)
    assert [waiting.remove(gone), waiting.remove(gone), waiting.remove(Item())] == [
        True,
        False,
        False,
    ]
    assert list(waiting) == [third, first]
    assert waiting.take(10).batch == (third, first)
    assert not waiting


def test_a_model_without_a_batch_dimension_runs_each_request_alone() -> None:
    first, second = Item(), Item()
    assert take(first, second, rows_max=1).batch == (first,)


def test_a_busy_worker_is_given_no_request_where_the_first_has_expired() -> None:
    waiting = line(Item(deadline_ns=5), Item(), rows_max=1)
    assert waiting.take_one(5) is None
    assert len(list(waiting)) == 2, "the loop has to tell the one, and runs the other"


# ---------------------------------------------------------------- any queue

drawn = st.tuples(
    st.integers(1, 4),
    st.sampled_from("abc"),
    st.none() | st.integers(0, 80),
    st.sampled_from([0, 0, 1, 2]),
)


def in_order(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda each: (each.priority or 99, each.arrived_ns))


def told(queue: list[Item], now_ns: int, delay_ns: int) -> TakeResult[Item]:
    """Return what the rules say of a queue, written as they read."""
    groups = [[each for each in queue if each.shape_key == key] for key in "abc"]
    oldest = {key: min(e.arrived_ns for e in g) for key, g in zip("abc", groups, strict=True) if g}
    due = [
        in_order(group)
        for group in groups
        if group
        and (
            sum(each.rows for each in group) >= 4 or oldest[group[0].shape_key] + delay_ns <= now_ns
        )
    ]
    if not due:
        return TakeResult(next_due_ns=min(oldest.values()) + delay_ns if oldest else None)
    first = min(due, key=lambda group: (group[0].priority or 99, group[0].arrived_ns))
    batch: list[Item] = []
    expired: list[Item] = []
    for each in first:
        if each.deadline_ns is not None and each.deadline_ns <= now_ns:
            expired.append(each)
        elif sum(e.rows for e in batch) + each.rows > 4:
            break
        else:
            batch.append(each)
            if sum(e.rows for e in batch) == 4:
                break
    return TakeResult(expired=tuple(expired)) if expired else TakeResult(tuple(batch))


@given(st.lists(drawn, max_size=24), st.sampled_from([0, 10, 100]), st.randoms())
def test_whatever_comes_and_leaves_the_rules_hold_until_the_line_is_empty(
    found: list[tuple[int, str, int | None, int]], delay_ns: int, chance: object
) -> None:
    waiting, queue = line(max_delay_ns=delay_ns), list[Item]()
    for arrived_ns, (rows, shape, deadline_ns, priority) in enumerate(found):
        item = Item(rows, shape, arrived_ns, deadline_ns, priority)
        waiting.add(item)
        queue.append(item)
        if arrived_ns % 5 == 4:
            waiting.remove(queue.pop(chance.randrange(len(queue))))  # type: ignore[attr-defined]
    now_ns = 24  # nobody comes later
    while queue:
        taken = waiting.take(now_ns)
        assert taken == told(queue, now_ns, delay_ns)
        assert sum(each.rows for each in taken.batch) <= 4
        queue = [each for each in queue if each not in (*taken.batch, *taken.expired)]
        if taken.next_due_ns is not None:
            assert taken.next_due_ns > now_ns, "nothing that is due is left waiting"
            now_ns = taken.next_due_ns
        assert set(waiting) == set(queue), "nobody is forgotten, nobody comes twice"
    assert not waiting


@pytest.mark.parametrize("delay_ns", [0, 10])
def test_expired_requests_alone_leave_nothing_to_wait_for(delay_ns: int) -> None:
    late = Item(deadline_ns=0)
    waiting = line(late, max_delay_ns=delay_ns)
    if delay_ns:
        assert waiting.take(0) == TakeResult(next_due_ns=10), "its deadline has a watch of its own"
    assert waiting.take(10) == TakeResult(expired=(late,))
    assert waiting.take(10) == TakeResult()


@given(st.lists(drawn, max_size=24))
def test_a_busy_worker_is_given_what_an_idle_one_would_be(
    found: list[tuple[int, str, int | None, int]],
) -> None:
    items = [Item(1, shape, at, None, rank) for at, (_, shape, _, rank) in enumerate(found)]
    idle, busy = (line(*items, rows_max=1) for _ in range(2))
    for _ in items:
        (expected,) = idle.take(24).batch
        assert busy.take_one(24) is expected
    assert not busy
    assert busy.take_one(24) is None

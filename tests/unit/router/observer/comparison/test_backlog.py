"""Jobs that wait: bounded, counted, and handed out in batches."""

import random

import pytest

from coalmine_router.observer.comparison.backlog import BATCH_BYTES_MAX, BATCH_JOBS_MAX, Backlog
from tests.doubles.comparing import Words, words


def backlog(jobs_max: int = 100, bytes_max: int = 1_000) -> Backlog[Words, str]:
    return Backlog(jobs_max, bytes_max)


async def test_its_fill_is_that_of_jobs_or_of_bytes_whichever_is_more() -> None:
    one = backlog()
    one.put(words("a", 500))
    assert one.fill == 0.5
    for _ in range(79):
        one.put(words("a", 0))
    assert one.fill == 0.8


async def test_what_is_being_compared_takes_room_until_it_has_ended() -> None:
    one = backlog()
    one.put(words("a", 500))
    (taken,) = one.take(1)
    assert (one.batches, one.queue_bytes, one.fill) == (0, 0, 0.5)
    one.end(taken, "A")
    assert (len(one), one.fill) == (0, 0.0)


async def test_processes_share_what_waits() -> None:
    one = backlog()
    for _ in range(10):
        one.put(words("a", 1))
    assert [len(one.take(processes)) for processes in (3, 3, 1, 1)] == [4, 2, 4, 0]


async def test_a_batch_is_bounded_in_jobs_and_in_bytes() -> None:
    one = backlog(1_000, 10 * BATCH_BYTES_MAX)
    for _ in range(BATCH_JOBS_MAX + 1):
        one.put(words("a", 1))
    assert one.batches == 2
    assert len(one.take(1)) == BATCH_JOBS_MAX
    for _ in range(4):
        one.put(words("b", BATCH_BYTES_MAX // 2))
    assert one.batches == 3
    assert [len(one.take(1)) for _ in range(3)] == [2, 2, 1]


async def test_a_job_larger_than_a_batch_goes_alone() -> None:
    one = backlog()
    one.put(words("a", 3 * BATCH_BYTES_MAX))
    one.put(words("b", 1))
    assert [each.job.word for each in one.take(1)] == ["a"]


async def test_a_job_ends_once_and_the_first_word_holds() -> None:
    one = backlog()
    waiting = one.put(words("a", 1))
    one.end(waiting, "A")
    one.end(waiting, None)
    assert await waiting.outcome == "A"
    assert (one.compared, one.left_out) == (1, 0)


async def test_a_job_whose_caller_has_gone_is_not_handed_out() -> None:
    one = backlog()
    gone, here = one.put(words("a", 1)), one.put(words("b", 1))
    gone.outcome.cancel()
    one.end(gone, None)
    assert one.take(1) == [here]
    assert (one.left_out, one.queue_bytes) == (1, 0)


async def test_cleared_everything_is_left_out_and_it_is_settled() -> None:
    one = backlog()
    waiting = [one.put(words("a", 1)) for _ in range(5)]
    one.take(5)
    one.clear()
    await one.wait_until_empty()
    assert [await each.outcome for each in waiting] == [None] * 5
    assert (len(one), one.bytes, one.batches, one.left_out) == (0, 0, 0, 5)


@pytest.mark.parametrize("seed", range(3))
async def test_bytes_and_counts_add_up_whatever_the_order(seed: int) -> None:
    one, rng = backlog(), random.Random(seed)
    put, held = 0, []
    for _ in range(500):
        if rng.random() < 0.5:
            one.put(words("a", rng.randrange(50)))
            put += 1
        held += one.take(rng.randint(1, 4)) if rng.random() < 0.3 else []
        if held and rng.random() < 0.6:
            one.end(held.pop(rng.randrange(len(held))), rng.choice(["A", None]))
        assert put == len(one) + one.compared + one.left_out
        assert one.bytes - one.queue_bytes == sum(each.size_bytes for each in held)

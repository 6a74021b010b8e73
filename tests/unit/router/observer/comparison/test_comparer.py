"""What is compared on the loop, what in processes, and what is left out."""

import asyncio

import pytest

from coalmine_router.observer.comparison.comparer import ComparerLimits
from tests.doubles.clock import HandClock
from tests.doubles.comparing import Pool, ScriptedWorker, Words, Workers, comparing, run, words
from tests.doubles.waiting import eventually

LARGE = 64 * 1024 + 1
SECOND_NS = 10**9


class Costly:
    """A clock, and a comparison that takes time by it."""

    def __init__(self, cost_ns: int) -> None:
        self.clock = HandClock()
        self.cost_ns = cost_ns

    def run(self, job: Words) -> str:
        self.clock.now_ns += self.cost_ns
        return run(job)


def blocked() -> ScriptedWorker:
    worker = ScriptedWorker()
    worker.go.clear()
    return worker


def summed(pool: Pool) -> tuple[int, int, int]:
    counts = pool.counts()
    return counts.compared, counts.left_out, counts.waiting


async def test_a_small_job_is_compared_at_once_and_starts_no_process() -> None:
    workers = Workers()
    async with comparing(workers.start) as pool:
        assert await pool.compare(words("a")) == "A"
        assert summed(pool) == (1, 0, 0)
    assert workers.made == []


async def test_a_large_job_never_stays_on_the_loop() -> None:
    workers = Workers()
    async with comparing(workers.start) as pool:
        assert await pool.compare(words("a", LARGE)) == "A"
        assert pool.counts().processes == 1
    assert workers.made[0].batches == [["a"]]
    assert workers.up == 0


async def test_a_small_job_waits_for_no_large_one() -> None:
    workers = Workers(blocked)
    async with comparing(workers.start) as pool, asyncio.TaskGroup() as tasks:
        large = tasks.create_task(pool.compare(words("large", LARGE)))
        await eventually(lambda: workers.made and workers.made[0].batches)
        assert await pool.compare(words("small")) == "SMALL"
        assert not large.done()
        workers.made[0].go.set()


async def test_a_loop_that_is_busy_comparing_leaves_small_jobs_to_processes() -> None:
    workers, costly = Workers(), Costly(SECOND_NS // 100)
    async with comparing(workers.start, clock=costly.clock, run=costly.run) as pool:
        for number in range(200):
            assert await pool.compare(words(f"job {number}")) == f"JOB {number}"
            costly.clock.now_ns += SECOND_NS // 1_000
        handed = sum(len(batch) for each in workers.made for batch in each.batches)
        assert 0 < handed < 200
        assert summed(pool) == (200, 0, 0)


async def test_a_backlog_is_worked_off_in_batches_by_as_many_processes_as_may_be() -> None:
    workers = Workers(blocked)
    async with comparing(workers.start, processes_max=2) as pool, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(pool.compare(words("a", LARGE))) for _ in range(300)]
        await eventually(lambda: len(workers.made) == 2)
        for each in workers.made:
            each.go.set()
        assert [await each for each in waiting] == ["A"] * 300
    assert len(workers.made) == 2
    assert sum(len(batch) for each in workers.made for batch in each.batches) == 300


async def test_what_is_over_the_backlog_is_left_out_counted_and_told() -> None:
    workers, limits = Workers(blocked), ComparerLimits(backlog_jobs_max=64)
    async with comparing(workers.start, limits=limits) as pool:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(pool.compare(words("a", LARGE))) for _ in range(1_000)]
            await eventually(lambda: sum(each.done() for each in waiting) > 900)
            counts = pool.counts()
            assert 0 < counts.share_bp < 1_000
            assert counts.waiting_bytes == counts.waiting * LARGE
            assert counts.waiting + counts.left_out == 1_000
            for each in workers.made:
                each.go.set()
        results = [each.result() for each in waiting]
        assert summed(pool) == (results.count("A"), results.count(None), 0)
        assert pool.counts().share_bp == 10_000


async def test_large_jobs_are_left_out_as_often_as_small_ones() -> None:
    workers, limits = Workers(blocked), ComparerLimits(backlog_bytes_max=40 * LARGE)
    async with comparing(workers.start, limits=limits) as pool, asyncio.TaskGroup() as tasks:
        sizes = [LARGE, 8 * LARGE] * 2_000
        waiting = [tasks.create_task(pool.compare(words("a", size))) for size in sizes]
        await eventually(lambda: sum(each.done() for each in waiting) > 3_900)
        kept = [each for each in zip(sizes, waiting, strict=True) if not each[1].done()]
        assert len(kept) > 4
        large = sum(size > LARGE for size, _ in kept)
        assert 0.2 < large / len(kept) < 0.8
        for each in workers.made:
            each.go.set()


async def test_a_lost_process_costs_its_batch_and_the_next_one_does_the_rest() -> None:
    workers = Workers(lambda: ScriptedWorker(losing=len(workers.made) == 0))
    async with comparing(workers.start, processes_max=1) as pool, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(pool.compare(words("a", LARGE))) for _ in range(200)]
        await pool.wait_until_idle()
        results = [await each for each in waiting]
        lost = len(workers.made[0].batches[0])
        assert (results.count(None), results.count("A")) == (lost, 200 - lost)
        assert summed(pool) == (200 - lost, lost, 0)
    assert len(workers.made) == 2


async def test_a_process_that_died_while_it_was_free_costs_no_job() -> None:
    workers = Workers()
    async with comparing(workers.start) as pool:
        assert await pool.compare(words("a", LARGE)) == "A"
        workers.made[0].is_up = False
        assert await pool.compare(words("b", LARGE)) == "B"
    assert len(workers.made) == 2


async def test_where_no_process_lives_small_jobs_go_on_and_large_ones_are_left_out() -> None:
    workers, clock = Workers(lambda: ScriptedWorker(losing=True)), HandClock()
    async with comparing(workers.start, clock=clock) as pool:
        assert [await pool.compare(words("a", LARGE)) for _ in range(5)] == [None] * 5
        assert len(workers.made) == 2
        assert await pool.compare(words("a")) == "A"
        workers.make = ScriptedWorker
        clock.now_ns += SECOND_NS
        assert await pool.compare(words("a", LARGE)) == "A"
        assert summed(pool) == (2, 5, 0)


async def test_without_processes_the_loop_compares_what_it_can_and_leaves_out_the_rest() -> None:
    workers, costly = Workers(lambda: ScriptedWorker(losing=True)), Costly(SECOND_NS // 2_000)
    async with comparing(workers.start, clock=costly.clock, run=costly.run) as pool:
        for _ in range(2):
            await pool.compare(words("a", LARGE))
        results = [await pool.compare(words("a")) for _ in range(1_500)]
        assert 100 < results.count(None) < 1_400
        assert pool.counts().left_out == 2 + results.count(None)


async def test_a_process_that_can_not_be_started_is_no_end_of_comparing() -> None:
    def refused() -> ScriptedWorker:
        raise OSError("no memory")

    async with comparing(refused) as pool:
        assert await pool.compare(words("a", LARGE)) is None
        assert await pool.compare(words("a")) == "A"


async def test_processes_are_given_back_when_nothing_came_for_long() -> None:
    workers = Workers()
    async with comparing(workers.start, limits=ComparerLimits(idle_s=0.01)) as pool:
        assert await pool.compare(words("a", LARGE)) == "A"
        await eventually(lambda: pool.counts().processes == 0)
        assert workers.up == 0
        assert await pool.compare(words("b", LARGE)) == "B"


async def test_a_job_that_fails_costs_no_other() -> None:
    async with comparing(Workers().start) as pool:
        assert await pool.compare(words("fail")) is None
        assert await pool.compare(words("a")) == "A"
        assert summed(pool) == (1, 1, 0)


async def test_a_caller_that_goes_leaves_nothing_behind() -> None:
    workers = Workers(blocked)
    async with comparing(workers.start) as pool:
        task = asyncio.ensure_future(pool.compare(words("a", LARGE)))
        await eventually(lambda: workers.made)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pool.wait_until_idle()
        assert summed(pool) == (0, 1, 0)


async def test_stopping_ends_processes_and_leaves_out_what_waits() -> None:
    workers = Workers(blocked)
    async with asyncio.TaskGroup() as tasks, comparing(workers.start) as pool:
        waiting = [tasks.create_task(pool.compare(words("a", LARGE))) for _ in range(9)]
        await eventually(lambda: workers.made)
    assert [each.result() for each in waiting] == [None] * 9
    assert workers.up == 0
    assert await pool.compare(words("late", LARGE)) is None
    assert await pool.compare(words("late")) == "LATE"
    assert summed(pool) == (1, 10, 0)

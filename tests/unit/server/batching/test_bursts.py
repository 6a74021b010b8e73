"""A model that takes one row at a time: a busy worker takes what waits, one after another."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from coalmine.errors import DeadlineSpent, ModelFailed, Overloaded, Unavailable
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.request_queue import PendingRequest, QueueLimits
from coalmine_server.figures.message import statistics_of
from coalmine_server.figures.statistics import VersionStatistics
from coalmine_server.signature import CheckedRequest
from tests.doubles.server_parts import MS, FakeTime, FakeWorker


class Alone:
    """A batcher of a model that can't batch, whose workers tell of nothing before a burst's end."""

    def __init__(
        self, *, workers: int = 1, queue_rows_max: int = 8, queue_bytes_max: int = 1_000
    ) -> None:
        self.time = FakeTime()
        self.workers = [FakeWorker(self.time, tells_each=False) for _ in range(workers)]
        self.counted = VersionStatistics()
        self.batcher = Batcher(
            label="model 'm' version 1",
            limits=QueueLimits(1, queue_rows_max, 0, queue_bytes_max),
            workers=self.workers,
            clock=self.time,
            timer=self.time,
            statistics=self.counted,
        )

    @property
    def worker(self) -> FakeWorker:
        return self.workers[0]

    def enter(
        self, value: float, *, deadline_ms: int | None = None, priority: int = 0
    ) -> PendingRequest:
        array = np.full((1, 1), value, dtype=np.float32)
        request = CheckedRequest(
            (array,), 1, ((1,),), (0,), raw=True, priority=priority, nbytes=array.nbytes
        )
        deadline_ns = None if deadline_ms is None else self.time.now_ns + deadline_ms * MS
        return self.batcher.enqueue(request, deadline_ns)

    def running(self) -> list[float | None]:
        return [None if each.running is None else _value(each.running) for each in self.workers]

    def ran(self) -> list[float]:
        return [_value(batch) for each in self.workers for batch in each.batches]


def _value(batch: Sequence[CheckedRequest]) -> float:
    ((array,),) = [each.arrays for each in batch]
    assert array is not None
    return float(array[0, 0])


async def answer(alone: Alone, pending: PendingRequest) -> float:
    return float(np.frombuffer(await alone.batcher.wait_for_answer(pending), dtype=np.float32)[0])


@pytest.fixture
async def alone() -> Alone:
    return Alone()


async def test_a_busy_worker_takes_all_that_waits_and_tells_of_it_together(alone: Alone) -> None:
    entered = [alone.enter(value) for value in (0.0, 1.0, 2.0)]
    alone.worker.finish()
    alone.worker.finish()
    assert alone.running() == [2.0]
    assert not any(each.future.done() for each in entered)
    alone.worker.finish()
    assert [await answer(alone, each) for each in entered] == [0.0, 1.0, 2.0]
    assert alone.running() == [None]


async def test_what_a_worker_has_not_begun_still_counts_as_waiting() -> None:
    alone = Alone(queue_rows_max=2)
    for value in (0.0, 1.0, 2.0):
        alone.enter(value)
    with pytest.raises(Overloaded, match="2 rows wait, at most 2 may"):
        alone.enter(3.0)
    alone.worker.finish()
    assert (alone.batcher.queue_rows, alone.batcher.queue_bytes) == (1, 4)
    alone.enter(3.0)


async def test_requests_for_which_workers_are_woken_are_not_those_that_wait() -> None:
    alone = Alone(workers=2, queue_rows_max=1)
    for worker in alone.workers:
        worker.is_late = True
    entered = [alone.enter(value) for value in (0.0, 1.0, 2.0)]
    with pytest.raises(Overloaded, match="3 rows wait, at most 1 may"):
        alone.enter(3.0)
    for worker in alone.workers:
        worker.wake()
    alone.workers[0].finish()
    for worker in alone.workers:
        worker.finish()
    assert sorted([await answer(alone, each) for each in entered]) == [0.0, 1.0, 2.0]


async def test_a_request_larger_than_what_may_wait_is_run_where_a_worker_is_idle() -> None:
    alone = Alone(queue_bytes_max=1)
    first = alone.enter(0.0)
    with pytest.raises(Overloaded, match="0 bytes wait, at most 1 may"):
        alone.enter(1.0)
    alone.worker.finish()
    assert await answer(alone, first) == 0.0
    alone.enter(2.0)


async def test_a_request_whose_deadline_passed_behind_others_is_not_run(alone: Alone) -> None:
    first, late, last = alone.enter(0.0), alone.enter(1.0, deadline_ms=5), alone.enter(2.0)
    alone.time.now_ns += 5 * MS  # and the loop had no time yet to look at its timers
    alone.worker.finish()
    assert alone.running() == [2.0]
    alone.worker.finish()
    assert [await answer(alone, first), await answer(alone, last)] == [0.0, 2.0]
    with pytest.raises(DeadlineSpent, match="in the queue, after 5 ms"):
        await answer(alone, late)
    assert alone.ran() == [0.0, 2.0]


async def test_a_request_that_was_cancelled_behind_others_is_not_run(alone: Alone) -> None:
    alone.enter(0.0)
    given_up = asyncio.ensure_future(answer(alone, alone.enter(1.0)))
    last = alone.enter(2.0)
    await asyncio.sleep(0)
    given_up.cancel()
    alone.worker.finish()  # before the cancelled task had its turn
    assert alone.running() == [2.0]
    with pytest.raises(asyncio.CancelledError):
        await given_up
    alone.worker.finish()
    assert await answer(alone, last) == 2.0
    assert alone.batcher.queue_rows == alone.batcher.queue_bytes == 0


async def test_a_higher_priority_overtakes_what_waits_for_a_busy_worker(alone: Alone) -> None:
    alone.enter(0.0)
    alone.enter(1.0)
    alone.worker.finish()
    alone.enter(2.0)
    alone.enter(3.0, priority=1)
    alone.worker.finish()
    assert alone.running() == [3.0]


async def test_a_request_that_no_worker_has_begun_can_still_expire_where_it_is_the_only_one(
    alone: Alone,
) -> None:
    alone.worker.is_late = True
    late = alone.enter(0.0, deadline_ms=5)
    alone.time.now_ns += 5 * MS
    alone.worker.wake()
    with pytest.raises(DeadlineSpent):
        await answer(alone, late)
    assert alone.ran() == []
    await alone.batcher.wait_drained()


async def test_a_request_that_was_given_up_before_its_worker_woke_is_not_run(alone: Alone) -> None:
    alone.worker.is_late = True
    given_up = asyncio.ensure_future(answer(alone, alone.enter(0.0)))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    alone.worker.wake()
    assert alone.ran() == []
    await alone.batcher.wait_drained()


async def test_what_another_worker_took_meanwhile_leaves_a_woken_one_idle() -> None:
    alone = Alone(workers=2)
    late, other = alone.workers
    alone.enter(0.0)
    late.is_late = True
    taken = alone.enter(1.0)
    other.finish()
    late.wake()
    assert late.batches == []
    other.finish()
    assert await answer(alone, taken) == 1.0
    await alone.batcher.wait_drained()


async def test_two_workers_share_what_waits_one_request_at_a_time() -> None:
    alone = Alone(workers=2)
    for value in range(5):
        alone.enter(float(value))
    assert sorted(map(str, alone.running())) == ["0.0", "1.0"]
    for worker in alone.workers:
        worker.finish()
    assert sorted(map(str, alone.running())) == ["2.0", "3.0"]


async def test_a_request_goes_to_the_worker_that_is_idle_and_not_behind_a_burst() -> None:
    alone = Alone(workers=2)
    alone.enter(0.0)
    alone.enter(1.0)
    busy, free = alone.workers
    free.finish()
    alone.enter(2.0)
    assert busy.running is not None
    assert free.running is not None


async def test_what_waits_behind_a_forward_that_hangs_is_run_by_another_worker() -> None:
    alone = Alone(workers=2)
    for value in (0.0, 1.0):
        alone.enter(value)
    waiting = [alone.enter(value) for value in (2.0, 3.0)]
    free = alone.workers[0]  # the other one hangs
    for _ in range(3):
        free.finish()
    assert [await answer(alone, each) for each in waiting] == [2.0, 3.0]


async def test_an_answer_is_not_held_back_by_a_forward_that_hangs(alone: Alone) -> None:
    first, hangs = alone.enter(0.0), alone.enter(1.0)
    alone.worker.finish()
    assert not first.future.done()
    alone.time.advance(5 * MS)
    assert await answer(alone, first) == 0.0
    assert not hangs.future.done()


async def test_an_answer_is_not_held_back_in_a_burst_that_began_beside_another_one() -> None:
    alone = Alone(workers=2)
    alone.enter(0.0)
    alone.time.advance(4 * MS)
    first, _ = alone.enter(1.0), alone.enter(2.0)
    alone.workers[0].finish()
    alone.time.advance(5 * MS)
    assert await answer(alone, first) == 1.0


async def test_after_a_burst_nothing_rings_any_more(alone: Alone) -> None:
    alone.enter(0.0)
    alone.worker.finish()
    alone.time.advance(100 * MS)
    assert alone.time.is_silent


async def test_an_error_in_one_request_does_not_touch_the_others_of_its_burst(alone: Alone) -> None:
    first, bad, last = (alone.enter(value) for value in (0.0, 1.0, 2.0))
    alone.worker.finish()
    alone.worker.finish([ModelFailed("poison")])
    alone.worker.finish()
    assert [await answer(alone, first), await answer(alone, last)] == [0.0, 2.0]
    with pytest.raises(ModelFailed, match="poison"):
        await answer(alone, bad)


async def test_each_request_of_a_burst_counts_as_a_batch_with_times_of_its_own(
    alone: Alone,
) -> None:
    first, second = alone.enter(0.0), alone.enter(1.0)
    alone.time.now_ns += 2 * MS
    alone.worker.finish()
    alone.time.now_ns += 1 * MS
    alone.worker.finish()
    message = statistics_of("m", "1", alone.counted, {})
    assert (message.inference_count, message.execution_count) == (2, 2)
    stats = message.inference_stats
    assert (stats.queue.ns, stats.compute_infer.ns) == (2 * MS, 3 * MS)
    spans = [(each.batch.started_ns, each.batch.ended_ns) for each in (first, second) if each.batch]
    began_ns = first.arrived_ns
    assert spans == [(began_ns, began_ns + 2 * MS), (began_ns + 2 * MS, began_ns + 3 * MS)]


async def test_closing_turns_away_what_a_busy_worker_has_not_begun(alone: Alone) -> None:
    running, waiting = alone.enter(0.0), alone.enter(1.0)
    alone.batcher.close()
    with pytest.raises(Unavailable):
        await answer(alone, waiting)
    alone.worker.finish()
    assert await answer(alone, running) == 0.0
    assert alone.ran() == [0.0]


async def test_draining_waits_for_the_whole_burst(alone: Alone) -> None:
    last = [alone.enter(0.0), alone.enter(1.0)][1]
    wait_drained = asyncio.ensure_future(alone.batcher.wait_drained())
    alone.worker.finish()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not wait_drained.done()
    alone.worker.finish()
    await wait_drained
    assert await answer(alone, last) == 1.0

import asyncio

import numpy as np
import pytest

from coalmine.errors import DeadlineSpent, ModelFailed, Overloaded, Unavailable
from coalmine_server.batcher import Batcher, Limits, LoopTimer, Pending
from coalmine_server.metrics import Metrics
from coalmine_server.runtime.execution import Arrays
from coalmine_server.signature import Checked
from tests.doubles.server_parts import MS, FakeTime, FakeWorker


def request(*values: float, width: int = 1) -> Checked:
    array = np.repeat(np.array(values, dtype=np.float32)[:, None], width, axis=1)
    return Checked((array,), len(values), ((width,),), (0,), raw=True, timeout_ns=None)


class Bench:
    """A batcher over doubles."""

    def __init__(self, *, workers: int = 1, **limits: int) -> None:
        self.time = FakeTime()
        self.workers = [FakeWorker(self.time) for _ in range(workers)]
        self.metrics = Metrics()
        given = {"rows_max": 4, "queue_rows_max": 8, "max_delay_ns": 0, **limits}
        self.batcher = Batcher(
            label="model 'm' version 1",
            limits=Limits(**given),
            workers=self.workers,
            clock=self.time,
            timer=self.time,
            metrics=self.metrics.of_version("m", "1"),
        )

    @property
    def worker(self) -> FakeWorker:
        return self.workers[0]

    def enter(self, *values: float, deadline_ms: int | None = None, width: int = 1) -> Pending:
        deadline_ns = None if deadline_ms is None else self.time.now_ns + deadline_ms * MS
        return self.batcher.enter(request(*values, width=width), deadline_ns)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"coalmine_server_{name}", {"model": "m", "version": "1", **labels}
        )


async def answer(bench: Bench, pending: Pending) -> list[float]:
    outputs: Arrays = await bench.batcher.outcome(pending)
    values: list[float] = outputs[0][:, 0].tolist()
    return values


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_cancelled_request_does_not_disturb_its_batch(bench: Bench) -> None:
    running = bench.enter(0.0)
    mates = [bench.enter(1.0), bench.enter(2.0), bench.enter(3.0)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(bench, each)) for each in (running, *mates)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.sleep(0)
        bench.worker.finish()
        assert len(bench.worker.batches[1]) == 2, "the cancelled one is not run"
        bench.worker.finish()
    assert [task.result() for task in (tasks[0], tasks[1], tasks[3])] == [[0.0], [1.0], [3.0]]
    assert tasks[2].cancelled()


async def test_a_request_cancelled_while_it_runs_leaves_its_batch_running(bench: Bench) -> None:
    bench.enter(0.0)
    first, second = bench.enter(1.0), bench.enter(2.0)
    bench.worker.finish()
    async with asyncio.TaskGroup() as group:
        given_up = group.create_task(answer(bench, first))
        waits = group.create_task(answer(bench, second))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        bench.worker.finish()
    assert waits.result() == [2.0]


async def test_a_lone_request_runs_at_once_where_there_is_no_delay(bench: Bench) -> None:
    pending = bench.enter(1.0)
    assert bench.worker.running is not None
    bench.worker.finish()
    assert await answer(bench, pending) == [1.0]


async def test_what_comes_while_the_worker_is_busy_becomes_one_batch(bench: Bench) -> None:
    bench.enter(0.0)
    waiting = [bench.enter(1.0, 2.0), bench.enter(3.0)]
    assert bench.batcher.queue_rows == 3
    bench.worker.finish()
    assert bench.batcher.queue_rows == 0
    bench.worker.finish()
    assert [await answer(bench, each) for each in waiting] == [[1.0, 2.0], [3.0]]
    assert waiting[0].batch_rows == 3


async def test_with_a_delay_a_batch_goes_when_it_is_full() -> None:
    bench = Bench(max_delay_ns=5 * MS)
    bench.enter(1.0, 2.0)
    assert bench.worker.running is None
    bench.enter(3.0, 4.0)
    assert bench.worker.running is not None


async def test_with_a_delay_a_batch_goes_when_its_oldest_has_waited_long_enough() -> None:
    bench = Bench(max_delay_ns=5 * MS)
    bench.enter(1.0)
    bench.time.advance(3 * MS)
    bench.enter(2.0)
    bench.time.advance(1 * MS)
    assert bench.worker.running is None
    bench.time.advance(1 * MS)
    assert bench.worker.running is not None
    assert len(bench.worker.running) == 2


async def test_two_workers_run_two_batches_at_a_time() -> None:
    bench = Bench(workers=2)
    bench.enter(1.0)
    bench.enter(2.0)
    assert all(worker.running is not None for worker in bench.workers)


async def test_shapes_that_differ_run_apart(bench: Bench) -> None:
    bench.enter(0.0)
    bench.enter(1.0)
    bench.enter(2.0, width=2)
    bench.worker.finish()
    bench.worker.finish()
    assert [len(batch) for batch in bench.worker.batches] == [1, 1, 1]


async def test_a_deadline_that_passes_in_the_queue_is_answered_without_running(
    bench: Bench,
) -> None:
    bench.enter(0.0)
    late = bench.enter(1.0, deadline_ms=5)
    bench.time.advance(5 * MS)
    with pytest.raises(DeadlineSpent, match="the deadline passed in the queue, after 5 ms"):
        await answer(bench, late)
    bench.worker.finish()
    assert len(bench.worker.batches) == 1
    assert bench.batcher.queue_rows == 0


async def test_each_request_in_the_queue_has_its_own_deadline(bench: Bench) -> None:
    bench.enter(0.0)
    deadlines_ms = (30, 10, None, 20)
    waiting = [bench.enter(1.0, deadline_ms=each) for each in deadlines_ms]
    done_after: list[list[bool]] = []
    for _ in range(3):
        bench.time.advance(10 * MS)
        done_after.append([each.future.done() for each in waiting])
    assert done_after == [
        [False, True, False, False],
        [False, True, False, True],
        [True, True, False, True],
    ]
    bench.worker.finish()
    bench.worker.finish()
    assert await answer(bench, waiting[2]) == [1.0]


async def test_a_deadline_that_has_passed_already_never_runs(bench: Bench) -> None:
    with pytest.raises(DeadlineSpent):
        await answer(bench, bench.enter(1.0, deadline_ms=0))
    assert bench.worker.batches == []


async def test_a_deadline_has_no_say_once_the_request_runs(bench: Bench) -> None:
    pending = bench.enter(1.0, deadline_ms=5)
    bench.time.advance(50 * MS)
    bench.worker.finish()
    assert await answer(bench, pending) == [1.0]


async def test_a_full_queue_sheds_by_rows(bench: Bench) -> None:
    bench.enter(0.0)
    bench.enter(1.0, 2.0, 3.0, 4.0)
    bench.enter(1.0, 2.0, 3.0)
    with pytest.raises(Overloaded, match="queue is full, 7 rows wait, at most 8 may"):
        bench.enter(1.0, 2.0)
    bench.enter(8.0)
    assert bench.batcher.queue_rows == 8


async def test_a_full_queue_sheds_by_bytes() -> None:
    bench = Bench(queue_bytes_max=8)
    bench.enter(0.0)
    bench.enter(1.0, 2.0)
    with pytest.raises(Overloaded, match="8 bytes wait"):
        bench.enter(3.0)


async def test_one_failure_in_a_batch_is_that_requests_alone(bench: Bench) -> None:
    bench.enter(0.0)
    bad, good = bench.enter(1.0), bench.enter(2.0)
    bench.worker.finish()
    outputs = (np.array([[2.0]], dtype=np.float32),)
    bench.worker.finish([ModelFailed("poison"), outputs])
    assert await answer(bench, good) == [2.0]
    with pytest.raises(ModelFailed, match="poison"):
        await answer(bench, bad)


async def test_closing_turns_away_what_waits_and_what_comes_but_not_what_runs(
    bench: Bench,
) -> None:
    running, waiting = bench.enter(0.0), bench.enter(1.0)
    bench.batcher.close()
    with pytest.raises(Unavailable):
        await answer(bench, waiting)
    with pytest.raises(Unavailable):
        bench.enter(2.0)
    bench.worker.finish()
    assert await answer(bench, running) == [0.0]


async def test_times_and_rows_are_counted(bench: Bench) -> None:
    bench.enter(0.0)
    waiting = bench.enter(1.0, 2.0)
    bench.time.advance(4 * MS)
    bench.worker.finish()
    bench.time.advance(6 * MS)
    bench.worker.finish()
    await answer(bench, waiting)
    assert (waiting.started_ns - waiting.arrived_ns) == 4 * MS
    assert (waiting.ended_ns - waiting.started_ns) == 6 * MS
    assert bench.value("queue_seconds_count") == 2
    assert bench.value("queue_seconds_sum") == pytest.approx(0.004)
    assert bench.value("compute_seconds_sum") == pytest.approx(0.010)
    assert bench.value("batch_rows_sum") == 3


async def test_the_loops_timer_never_goes_off_early() -> None:
    time = FakeTime()
    gone_off = asyncio.Event()
    LoopTimer(time).call_at(time.now_ns - MS, gone_off.set)
    await asyncio.wait_for(gone_off.wait(), 5)
    called_off = LoopTimer(time).call_at(time.now_ns + 1, lambda: pytest.fail("called off"))
    called_off.cancel()

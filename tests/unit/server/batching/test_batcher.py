import asyncio

import numpy as np
import pytest
from structlog.testing import capture_logs

from coalmine.errors import DeadlineSpent, ModelFailed, Overloaded, Unavailable
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.request_queue import PendingRequest, QueueLimits
from coalmine_server.figures.message import statistics_of
from coalmine_server.figures.metrics import Metrics
from coalmine_server.signature import CheckedRequest
from tests.doubles.server_parts import MS, FakeTime, FakeWorker


def request(*values: float, width: int = 1, priority: int = 0) -> CheckedRequest:
    array = np.repeat(np.array(values, dtype=np.float32)[:, None], width, axis=1)
    key = ((width,),)
    return CheckedRequest(
        (array,), len(values), key, (0,), raw=True, priority=priority, nbytes=array.nbytes
    )


class Bench:
    """A batcher over doubles."""

    def __init__(self, *, workers: int = 1, **limits: int) -> None:
        self.time = FakeTime()
        self.workers = [FakeWorker(self.time) for _ in range(workers)]
        self.metrics = Metrics()
        given = {"rows_max": 4, "queue_rows_max": 8, "queue_bytes_max": 1_000, **limits}
        self.batcher = Batcher(
            label="model 'm' version 1",
            limits=QueueLimits(**{"max_delay_ns": 0, **given}),
            workers=self.workers,
            clock=self.time,
            timer=self.time,
            statistics=self.metrics.ensure_statistics("m", "1"),
        )

    @property
    def worker(self) -> FakeWorker:
        return self.workers[0]

    def enter(
        self, *values: float, deadline_ms: int | None = None, **of_request: int
    ) -> PendingRequest:
        deadline_ns = None if deadline_ms is None else self.time.now_ns + deadline_ms * MS
        return self.batcher.enqueue(request(*values, **of_request), deadline_ns)

    @property
    def running(self) -> list[float]:
        """The first value of each request in the batch that the first worker runs."""
        assert self.worker.running is not None
        arrays = [each.arrays[0] for each in self.worker.running]
        return [float(each[0, 0]) for each in arrays if each is not None]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"coalmine_server_{name}", {"model": "m", "version": "1", **labels}
        )


async def answer(bench: Bench, pending: PendingRequest) -> list[float]:
    answered = await bench.batcher.wait_for_answer(pending)
    values: list[float] = np.frombuffer(answered, dtype=np.float32).tolist()
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
    assert waiting[0].batch is waiting[1].batch
    assert waiting[0].batch is not None
    assert waiting[0].batch.rows == 3


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
    fine = np.array([2.0], dtype=np.float32).tobytes()
    bench.worker.finish([ModelFailed("poison"), fine])
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


# ---------------------------------------------------------------- priorities


async def test_a_higher_priority_overtakes_what_waits(bench: Bench) -> None:
    bench.enter(0.0)
    for value, priority in ((1.0, 0), (2.0, 9), (3.0, 1), (4.0, 0), (5.0, 1)):
        bench.enter(value, priority=priority)
    bench.worker.finish()
    assert bench.running == [3.0, 5.0, 2.0, 1.0]


async def test_without_priorities_requests_run_in_order_of_arrival(bench: Bench) -> None:
    bench.enter(0.0)
    for value in (1.0, 2.0, 3.0):
        bench.enter(value)
    bench.worker.finish()
    assert bench.running == [1.0, 2.0, 3.0]


async def test_with_a_delay_a_full_request_does_not_overtake_what_waits_of_its_shape() -> None:
    bench = Bench(max_delay_ns=5 * MS)
    bench.enter(1.0)
    bench.enter(2.0, 2.0, 2.0, 2.0)
    assert bench.running == [1.0]


async def test_a_full_request_goes_at_once_where_nothing_waits() -> None:
    bench = Bench(max_delay_ns=5 * MS)
    bench.enter(2.0, 2.0, 2.0, 2.0)
    assert bench.running == [2.0]


# ---------------------------------------------------------------- cancelling and hanging


async def test_a_request_that_was_cancelled_this_very_moment_does_not_run(bench: Bench) -> None:
    bench.enter(0.0)
    async with asyncio.TaskGroup() as group:
        given_up = group.create_task(answer(bench, bench.enter(1.0)))
        kept = group.create_task(answer(bench, bench.enter(2.0)))
        await asyncio.sleep(0)
        given_up.cancel()
        bench.worker.finish()  # before the cancelled task had its turn
        assert bench.running == [2.0]
        bench.worker.finish()
    assert kept.result() == [2.0]
    assert bench.batcher.queue_rows == bench.batcher.queue_bytes == 0


async def test_where_all_that_waited_was_cancelled_no_batch_runs(bench: Bench) -> None:
    bench.enter(0.0)
    waiting = asyncio.ensure_future(answer(bench, bench.enter(1.0)))
    await asyncio.sleep(0)
    waiting.cancel()
    bench.worker.finish()
    assert bench.worker.running is None
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_forward_that_hangs_holds_up_no_other_worker() -> None:
    bench = Bench(workers=2)
    hangs = asyncio.ensure_future(answer(bench, bench.enter(0.0, deadline_ms=5)))
    await asyncio.sleep(0)
    hangs.cancel()  # what gRPC does at the deadline
    with pytest.raises(asyncio.CancelledError):
        await hangs
    hanging, free = sorted(bench.workers, key=lambda each: each.running is None)
    for value in (1.0, 2.0):
        pending = bench.enter(value)
        free.finish()
        assert await answer(bench, pending) == [value]
    hanging.finish()
    pending = bench.enter(3.0)
    assert bench.batcher.queue_rows == 0
    next(each for each in bench.workers if each.running).finish()
    assert await answer(bench, pending) == [3.0]


async def test_a_failure_that_nobody_waits_for_is_logged_all_the_same(bench: Bench) -> None:
    given_up = asyncio.ensure_future(answer(bench, bench.enter(0.0)))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    with capture_logs() as logs:
        bench.worker.finish([ModelFailed("poison")])
    assert [(each["event"], each["label"]) for each in logs] == [
        ("model_failed", "model 'm' version 1")
    ]


# ---------------------------------------------------------------- draining


async def wait_drained(bench: Bench) -> asyncio.Future[None]:
    waits = asyncio.ensure_future(bench.batcher.wait_drained())
    await asyncio.sleep(0)
    return waits


async def is_done(waits: asyncio.Future[None]) -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return waits.done()


async def test_an_idle_batcher_is_drained(bench: Bench) -> None:
    assert await is_done(await wait_drained(bench))


async def test_draining_waits_for_what_runs_and_for_what_waits(bench: Bench) -> None:
    pending = [bench.enter(1.0), bench.enter(2.0)]
    waits = await wait_drained(bench)
    bench.worker.finish()
    assert not await is_done(waits)
    bench.worker.finish()
    assert await is_done(waits)
    assert [await answer(bench, each) for each in pending] == [[1.0], [2.0]]


async def test_draining_ends_when_the_last_that_waits_runs_out_of_time() -> None:
    bench = Bench(max_delay_ns=50 * MS)
    late = bench.enter(1.0, deadline_ms=5)
    waits = await wait_drained(bench)
    assert not await is_done(waits)
    bench.time.advance(5 * MS)
    assert await is_done(waits)
    with pytest.raises(DeadlineSpent):
        await answer(bench, late)


async def test_draining_ends_when_the_last_that_waits_is_given_up() -> None:
    bench = Bench(max_delay_ns=50 * MS)
    given_up = asyncio.ensure_future(answer(bench, bench.enter(1.0)))
    waits = await wait_drained(bench)
    given_up.cancel()
    assert await is_done(waits)


async def test_draining_waits_for_a_forward_whose_caller_has_gone(bench: Bench) -> None:
    given_up = asyncio.ensure_future(answer(bench, bench.enter(1.0)))
    waits = await wait_drained(bench)
    given_up.cancel()
    assert not await is_done(waits)
    bench.worker.finish()
    assert await is_done(waits)


async def test_what_comes_while_it_drains_is_waited_for_too(bench: Bench) -> None:
    bench.enter(1.0)
    waits = await wait_drained(bench)
    bench.enter(2.0)
    bench.worker.finish()
    assert not await is_done(waits)
    bench.worker.finish()
    assert await is_done(waits)


# ---------------------------------------------------------------- what is counted


async def test_times_and_rows_are_counted(bench: Bench) -> None:
    bench.enter(0.0)
    waiting = bench.enter(1.0, 2.0)
    bench.time.advance(4 * MS)
    bench.worker.finish()
    bench.time.advance(6 * MS)
    bench.worker.finish()
    await answer(bench, waiting)
    assert waiting.batch is not None
    assert (waiting.batch.started_ns - waiting.arrived_ns) == 4 * MS
    assert (waiting.batch.ended_ns - waiting.batch.started_ns) == 6 * MS
    assert bench.value("queue_seconds_count") == 2
    assert bench.value("queue_seconds_sum") == pytest.approx(0.004)
    assert bench.value("compute_seconds_sum") == pytest.approx(0.010)
    assert bench.value("batch_rows_sum") == 3


async def test_a_batch_counts_with_the_rows_that_succeeded(bench: Bench) -> None:
    bench.enter(0.0)
    bench.enter(1.0, 2.0)
    bench.enter(3.0)
    bench.worker.finish([ModelFailed("poison")])
    bench.worker.finish([b"fine", ModelFailed("poison")])
    message = statistics_of("m", "1", bench.metrics.ensure_statistics("m", "1"), {})
    assert (message.inference_count, message.execution_count) == (2, 1)
    assert [(each.batch_size, each.compute_infer.count) for each in message.batch_stats] == [(2, 1)]
    assert message.inference_stats.queue.count == 1
    assert message.last_inference == bench.time.wall_ns() // MS

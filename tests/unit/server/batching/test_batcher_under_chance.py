"""Whatever comes, goes and hangs in whatever order: everybody else gets exactly their own rows."""

import asyncio
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coalmine.errors import CoalmineError, ModelFailed
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.request_queue import QueueLimits
from coalmine_server.figures.statistics import VersionStatistics
from coalmine_server.runtime.execution import Result
from coalmine_server.signature import CheckedRequest
from tests.doubles.server_parts import MS, FakeTime, FakeWorker

POISON = -1.0
IF_POISON = {"INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
IF_NOT = {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}


def checked(value: float, rows: int, width: int, priority: int) -> CheckedRequest:
    array = np.full((rows, width), value, dtype=np.float32)
    return CheckedRequest(
        (array,), rows, ((width,),), (0,), raw=True, priority=priority, nbytes=array.nbytes
    )


class Callers:
    """Callers of one batcher, and what each of them got."""

    def __init__(self, seed: int, *, workers: int, max_delay_ns: int, rows_max: int) -> None:
        self.chance = Random(seed)
        self.time = FakeTime()
        tells_each = self.chance.choice([True, False])
        self.workers = [FakeWorker(self.time, tells_each) for _ in range(workers)]
        self.counted = VersionStatistics()
        self.rows_max = rows_max
        limits = QueueLimits(rows_max, 24, max_delay_ns, 600)
        self.batcher = Batcher(
            label="model 'm' version 1",
            limits=limits,
            workers=self.workers,
            clock=self.time,
            timer=self.time,
            statistics=self.counted,
        )
        self.tasks: dict[asyncio.Task[str], bool] = {}  # whether it was given up

    async def call(self, value: float) -> str:
        request = checked(
            value,
            self.chance.randint(1, self.rows_max),
            self.chance.randint(1, 3),
            self.chance.choice([0, 0, 0, 1, 2]),
        )
        deadline_ms = self.chance.choice([None, 3, 20])
        deadline_ns = deadline_ms and self.time.now_ns + deadline_ms * MS
        code = "CANCELLED"
        try:
            answer = await self.batcher.wait_for_answer(self.batcher.enqueue(request, deadline_ns))
            assert request.arrays[0] is not None
            assert answer == request.arrays[0].tobytes(), "somebody else's rows"
            code = "OK"
        except CoalmineError as error:
            code = error.code
        finally:
            self.counted.count_answer(code, 1)
        assert code in (IF_POISON if value == POISON else IF_NOT)
        return code

    def begin(self, group: asyncio.TaskGroup) -> None:
        value = POISON if self.chance.random() < 0.1 else float(len(self.tasks))
        self.tasks[group.create_task(self.call(value))] = False

    def give_up_one(self) -> None:
        alive = [each for each in self.tasks if not each.done()]
        if alive:
            chosen = self.chance.choice(alive)
            self.tasks[chosen] = chosen.cancel()

    def finish_one(self) -> None:
        busy = [each for each in self.workers if each.running]
        if busy:
            worker = self.chance.choice(busy)
            worker.finish([_result(each) for each in worker.running or ()])

    async def let_all_end(self) -> None:
        while self.batcher.queue_rows or any(each.running for each in self.workers):
            self.finish_one()
            self.time.advance(10 * MS)
            await asyncio.sleep(0)


def _result(request: CheckedRequest) -> Result:
    (array,) = request.arrays
    assert array is not None
    return ModelFailed("poison") if array[0, 0] == POISON else array.tobytes()


@settings(max_examples=150)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from("bbbbffcat"), max_size=60),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 5 * MS]),
    st.sampled_from([1, 8]),
)
async def test_every_caller_that_stays_is_answered_and_the_counters_add_up(
    seed: int, steps: list[str], workers: int, delay_ns: int, rows_max: int
) -> None:
    callers = Callers(seed, workers=workers, max_delay_ns=delay_ns, rows_max=rows_max)
    with capture_logs():
        await follow(callers, steps)
    add_up(callers)
    await asyncio.wait_for(callers.batcher.wait_drained(), 1)


async def follow(callers: Callers, steps: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for step in steps:
            match step:
                case "b":
                    callers.begin(group)
                case "f":
                    callers.finish_one()
                case "c":
                    callers.give_up_one()
                case "a":
                    callers.time.advance(callers.chance.randint(1, 6) * MS)
                case "t":
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
        await callers.let_all_end()


def add_up(callers: Callers) -> None:
    assert all(given_up or not task.cancelled() for task, given_up in callers.tasks.items())
    began = [task for task in callers.tasks if not task.cancelled()]
    counted, codes = callers.counted, [task.result() for task in began]
    assert counted.success_count == codes.count("OK")
    assert counted.requests.count >= counted.success_count, "some ran for nobody"
    sizes = counted.by_size.items()
    assert sum(size * each.count for size, each in sizes) == counted.inference_count
    assert sum(each.count for _, each in sizes) == counted.execution_count
    assert callers.batcher.queue_rows == callers.batcher.queue_bytes == 0

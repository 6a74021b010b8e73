"""64 callers, one call in four given up or out of time: every other one gets its own right rows.

COALMINE_STRESS_SECONDS says for how long.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.tensors import decode_outputs
from tests.doubles.processes import Started, started
from tests.doubles.server_rig import OPTIONS, infer_request
from tests.doubles.waiting import until
from tests.models import Linear, config, write_model

CALLERS = 64
BURST = 4_000
SECONDS = float(os.environ.get("COALMINE_STRESS_SECONDS", "8"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Started]:
    settings = config(batching={"max_delay": "2ms"}, instances=2)
    repository = write_model(tmp_path / "models", "digits", {1: Linear()}, settings).parent
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    arguments = ("server", "run", "--model-repository", repository, *ports)
    with started(*arguments, folder=tmp_path) as running:
        yield running


class Caller:
    """One of many; knows by itself what each of its calls has to come back with."""

    def __init__(self, stub: Any, seed: int) -> None:
        self._stub = stub
        self._chance = random.Random(seed)
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def call_until(self, end_s: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end_s:
            self.ends[await self._call()] += 1

    async def _call(self) -> str:
        fate = self._chance.choice(["cancelled", "late", *["patient"] * 6])
        rows = np.array(
            [self._chance.randrange(1_000) for _ in range(self._chance.randint(1, 6))], "f4"
        )
        request = infer_request("digits", {"pixels": np.repeat(rows[:, None], 64, axis=1)})
        request.id = f"{self._chance.random()}"
        timeout_s = self._chance.uniform(0, 0.01) if fate == "late" else 30
        call = self._stub.ModelInfer(request, timeout=timeout_s)
        if fate == "cancelled":
            await asyncio.sleep(self._chance.uniform(0, 0.01))
            call.cancel()
        return await self._end(call, request.id, rows, fate)

    async def _end(self, call: Any, request_id: str, rows: Any, fate: str) -> str:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            allowed = {"late": grpc.StatusCode.DEADLINE_EXCEEDED}.get(fate)
            if error.code() is not allowed:
                self.wrong.append(f"{fate}: {error.code().name}: {error.details()}")
            return error.code().name
        except asyncio.CancelledError:
            if fate != "cancelled":
                raise
            return "CANCELLED"
        (logits,) = decode_outputs(answer)
        expected = np.outer(rows * 64, np.arange(10, dtype="f4"))
        if answer.id != request_id or not np.array_equal(logits.array, expected):
            self.wrong.append(f"{fate}: another's rows")
        return "OK"


async def test_every_caller_who_stays_gets_exactly_its_own_right_rows(server: Started) -> None:
    channels = [
        grpc.aio.insecure_channel(server.address("grpc"), options=OPTIONS) for _ in range(4)
    ]
    stubs = [pb_grpc.GRPCInferenceServiceStub(each) for each in channels]
    callers = [Caller(stubs[number % 4], number) for number in range(CALLERS)]
    end_s = asyncio.get_running_loop().time() + SECONDS
    async with asyncio.timeout(SECONDS + 40), asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.call_until(end_s))
    ends = sum((caller.ends for caller in callers), Counter[str]())
    assert [each for caller in callers for each in caller.wrong] == []
    assert ends["OK"] > CALLERS
    assert ends["CANCELLED"]
    assert ends["DEADLINE_EXCEEDED"]
    await idle(server)
    statistics = await stubs[0].ModelStatistics(pb.ModelStatisticsRequest(name="digits"))
    for channel in channels:
        await channel.close()
    counts_add_up(statistics.model_stats[0], scraped(server), ends)


async def test_a_burst_is_answered_or_shed_but_never_cancelled(server: Started) -> None:
    async with grpc.aio.insecure_channel(server.address("grpc"), options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        request = infer_request("digits", {"pixels": np.ones((1, 64), "f4")})
        calls = [stub.ModelInfer(request, timeout=60) for _ in range(BURST)]
        codes = Counter([(await call.code()).name for call in calls])
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}, codes
    assert codes["OK"]


def counts_add_up(told: pb.ModelStatistics, metrics: dict[str, float], ends: Counter[str]) -> None:
    """Both accounts tell of the same calls, and of all whose answer a caller has."""
    by_code = {
        name.partition('code="')[2].partition('"')[0]: value
        for name, value in metrics.items()
        if name.startswith("coalmine_server_requests_total") and 'model="digits"' in name
    }
    stats = told.inference_stats
    assert set(by_code) <= {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
    assert stats.success.count == by_code["OK"] >= ends["OK"]
    assert stats.fail.count == sum(by_code.values()) - by_code["OK"]
    assert sum(by_code.values()) <= sum(ends.values())
    assert sum(each.compute_infer.count for each in told.batch_stats) == told.execution_count
    rows = sum(each.batch_size * each.compute_infer.count for each in told.batch_stats)
    assert rows == told.inference_count
    assert told.inference_count >= ends["OK"]
    assert metrics['coalmine_server_queue_rows{model="digits",version="1"}'] == 0


async def idle(server: Started) -> None:
    """Return once nothing is in flight any more."""
    await asyncio.to_thread(until, lambda: not scraped(server)["coalmine_server_in_flight"], 10)


def scraped(server: Started) -> dict[str, float]:
    lines = server.page().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}

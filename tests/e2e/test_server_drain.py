"""SIGTERM under load: who calls gets an answer, or is told to go elsewhere."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.load import OPTIONS, Load
from tests.doubles.processes import Started, alive, started
from tests.doubles.server_rig import infer_request, pixels
from tests.doubles.waiting import until
from tests.doubles.worker_processes import PORTS, both_up, total, workers
from tests.models import Linear, Slow, config, write_model

GRACE = ("--grace", "10s")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "digits", {1: Linear()}, config(batching={"max_delay": "1ms"}))
    write_model(root, "slow", {1: Slow()})
    return root


@pytest.fixture
def two(models: Path, tmp_path: Path) -> Iterator[Started]:
    options = (*PORTS, *GRACE, "--workers", "2")
    with started("server", "run", "--model-repository", models, *options, folder=tmp_path) as it:
        yield it


async def test_a_stop_of_one_worker_under_load_fails_no_call(two: Started) -> None:
    load = Load(two.address("grpc"))
    async with load.running(connections=8, callers=16):
        await load.answered(100)
        leaving = workers(two)[0]
        os.kill(leaving, signal.SIGTERM)
        await asyncio.to_thread(until, lambda: not alive(leaving), 20)
        await load.answered(100)
        await asyncio.to_thread(until, lambda: both_up(two, 1), 60)
        await load.answered(100)
    assert load.failures == {}, load.texts


async def test_a_stop_of_all_under_load_turns_callers_away_and_exits_0(two: Started) -> None:
    pids = workers(two)
    load = Load(two.address("grpc"))
    async with load.running(connections=4, callers=16):
        await load.answered(100)
        os.kill(two.pid, signal.SIGTERM)
        assert await asyncio.to_thread(two.process.wait, 20) == 0
    assert set(load.failures) == {"UNAVAILABLE"}, load.texts
    assert not any(alive(pid) for pid in pids)


async def test_a_stop_of_the_only_process_cancels_no_call(models: Path, tmp_path: Path) -> None:
    arguments = ("server", "run", "--model-repository", models, *PORTS, *GRACE)
    with started(*arguments, folder=tmp_path) as server:
        load = Load(server.address("grpc"))
        async with load.running(connections=4, callers=16):
            await load.answered(100)
            os.kill(server.pid, signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 20) == 0
    assert set(load.failures) == {"UNAVAILABLE"}, load.texts


async def test_what_is_in_flight_on_a_worker_that_ends_is_answered(two: Started) -> None:
    async with grpc.aio.insecure_channel(two.address("grpc"), options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer(infer_request("slow", pixels(value=500_000.0)), timeout=60)
        await asyncio.to_thread(until, lambda: total(two, "coalmine_server_in_flight") == 1, 20)
        for pid in workers(two):
            os.kill(pid, signal.SIGTERM)
        response = await call
    assert list(response.outputs[0].shape) == [1, 10]

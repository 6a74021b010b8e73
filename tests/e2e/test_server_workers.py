"""`server run --workers 2`: two processes at one port, kept alive, and changed as one."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.load import OPTIONS, Load
from tests.doubles.processes import Started, alive, begin, ran, started
from tests.doubles.server_process import written
from tests.doubles.server_rig import infer_request, pixels
from tests.doubles.waiting import until
from tests.doubles.worker_processes import (
    PORTS,
    RESTARTS,
    both_up,
    events,
    sample,
    total,
    workers,
)

TWO = (*PORTS, "--workers", "2", "--grace", "10s")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("tests.models", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Yield a server that tests leave as they found it."""
    arguments = ("server", "run", "--model-repository", models, *TWO, "--allow-load")
    with started(*arguments, folder=tmp_path_factory.mktemp("server")) as running:
        yield running


async def statistics(stub: Any) -> tuple[int, int]:
    response = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="digits"))
    return (
        sum(each.inference_stats.success.count for each in response.model_stats),
        sum(size.compute_infer.count for each in response.model_stats for size in each.batch_stats),
    )


async def test_both_answer_and_what_they_count_adds_up(shared: Started) -> None:
    load = Load(shared.address("grpc"))
    async with grpc.aio.insecure_channel(shared.address("grpc"), options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        before = await statistics(stub)
        async with load.running(connections=16, callers=16):
            await load.answered(300)
        after = await statistics(stub)
    assert load.failures == {}
    assert after[0] - before[0] == load.ends["OK"]
    assert 0 < after[1] - before[1] <= load.ends["OK"], "as many batches as that, or fewer"
    counted = total(shared, "coalmine_server_requests_total", 'code="OK"')
    assert counted == after[0]
    by_worker = [
        total(shared, "coalmine_server_requests_total", 'code="OK"', f'worker="{n}"')
        for n in range(2)
    ]
    assert min(by_worker) > 0, "16 connections, all at one of two: one in 32,768"


def test_the_http_side_is_the_supervisors(shared: Started) -> None:
    assert shared.said["pid"] == shared.pid
    assert shared.page("/healthz") == "ok\n"
    assert shared.page("/readyz") == "ready\n"
    assert sample(shared, 'coalmine_server_workers{state="up"}') == 2
    assert sample(shared, 'coalmine_server_workers{state="down"}') == 0


def test_the_supervisor_loads_no_torch(shared: Started) -> None:
    mapped = Path(f"/proc/{shared.pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert all("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in workers(shared))


async def test_a_change_reaches_every_worker_whoever_is_asked(shared: Started) -> None:
    async def states(ask: Any) -> set[str]:
        index = await ask.RepositoryIndex(pb.RepositoryIndexRequest())
        return {each.state for each in index.models}

    channels = [
        grpc.aio.insecure_channel(shared.address("grpc"), options=OPTIONS) for _ in range(12)
    ]
    stubs = [pb_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
    request = infer_request("digits", pixels())
    await stubs[0].RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="digits"))
    for stub in stubs:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await states(stub) == {"UNAVAILABLE"}
    await stubs[1].RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits"))
    for stub in stubs:
        await stub.ModelInfer(request, timeout=10)
        assert await states(stub) == {"READY"}
    for channel in channels:
        await channel.close()


async def test_kill_9_of_a_worker_fails_only_calls_in_flight_on_it(shared: Started) -> None:
    restarts = sample(shared, RESTARTS)
    load = Load(shared.address("grpc"))
    async with load.running(connections=8, callers=16):
        await load.answered(200)
        victim = workers(shared)[0]
        os.kill(victim, signal.SIGKILL)
        await load.answered(200)  # by the other one
        await asyncio.to_thread(until, lambda: both_up(shared, restarts + 1), 60)
        await load.answered(200)
    assert victim not in workers(shared)
    # A call fails that was in flight on it, or that waited for a connection it had taken.
    assert set(load.failures) <= {"UNAVAILABLE"}, load.texts
    assert sum(load.failures.values()) <= 16, load.texts
    died = [each for each in events(shared) if each["event"] == "process_died"]
    assert died[-1]["process"] == "worker-0"
    await reaches_both(shared)


async def reaches_both(server: Started) -> None:
    """Return once later connections reach both workers."""
    async with asyncio.timeout(20):
        while True:
            more = Load(server.address("grpc"))
            async with more.running(connections=8, callers=8):
                await more.answered(50)
            assert more.failures == {}
            name = "coalmine_server_requests_total"
            if all(total(server, name, f'worker="{n}"') > 0 for n in range(2)):
                return


async def test_a_model_that_was_unloaded_stays_so_in_a_worker_that_starts_again(
    shared: Started,
) -> None:
    restarts = sample(shared, RESTARTS)
    async with grpc.aio.insecure_channel(shared.address("grpc"), options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="digits"))
    os.kill(workers(shared)[0], signal.SIGKILL)
    await asyncio.to_thread(until, lambda: both_up(shared, restarts + 1), 60)
    async with grpc.aio.insecure_channel(shared.address("grpc"), options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)
        # Of all workers, and no reason tells one from another.
        assert {(each.state, each.reason) for each in index.models} == {("UNAVAILABLE", "unloaded")}
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits"))
        index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)
        assert {each.state for each in index.models} == {"READY"}


def test_nothing_outlives_a_supervisor_that_is_killed(models: Path, tmp_path: Path) -> None:
    arguments = ("server", "run", "--model-repository", models, *TWO)
    running = begin(*arguments, folder=tmp_path)
    try:
        assert running.process.stdout is not None
        running.process.stdout.readline()
        orphans = workers(running)
        [folder] = {Path(words[3]).parent for words in running.children().values()}
    finally:
        running.kill()
    assert len(orphans) == 2
    until(lambda: not any(alive(pid) for pid in orphans), 20)
    assert not folder.exists()


def test_what_is_wrong_is_said_once(models: Path, tmp_path: Path) -> None:
    done = ran("server", "run", "--model-repository", tmp_path / "nowhere", *TWO, folder=tmp_path)
    assert done.returncode == 2
    said = [each for each in done.stderr.splitlines() if each.startswith("coalmine: ")]
    assert said == [f"coalmine: model repository {tmp_path}/nowhere: not a folder"]
    assert done.stdout == ""


def test_a_second_server_on_the_workers_port_is_refused(shared: Started, tmp_path: Path) -> None:
    address = shared.address("grpc")
    taken = ("--listen", address, "--http", "127.0.0.1:0", "--workers", "2")
    done = ran("server", "run", "--model-repository", tmp_path, *taken, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"coalmine: cannot listen on {address}: address already in use\n"

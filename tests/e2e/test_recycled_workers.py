"""`--max-worker-age` under load: workers are replaced, also where there is one, and no call fails.

With memory it goes the same way (tests/integration/test_recycling.py).
"""

import asyncio
from pathlib import Path

import grpc
import pytest

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.load import OPTIONS, Load
from tests.doubles.processes import Started, started
from tests.doubles.router_setup import configuration
from tests.doubles.server_process import server_of, written
from tests.doubles.waiting import until
from tests.doubles.worker_processes import PORTS, sample, workers

AGE = ("--max-worker-age", "2s")
GRACE = ("--grace", "10s")
RECYCLED = "coalmine_server_workers_recycled_total"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("tests.models", tmp_path_factory.mktemp("models"))


async def no_call_fails(running: Started, port: str, recycled: str) -> None:
    """Call all the time, until a worker was replaced."""
    load = Load(running.address(port))
    async with load.running(connections=4, callers=4):
        await load.answered(100)
        await asyncio.to_thread(until, lambda: sample(running, recycled) >= 1, 60)
        await load.answered(100)
    assert load.failures == {}, load.texts


async def test_the_only_worker_of_a_server_is_replaced_and_keeps_to_changes(
    models: Path, tmp_path: Path
) -> None:
    arguments = ("server", "run", "--model-repository", models, *PORTS, *GRACE, *AGE)
    with started(*arguments, "--allow-load", folder=tmp_path) as server:
        [before] = workers(server)
        await no_call_fails(server, "grpc", RECYCLED)
        assert before not in workers(server)
        assert server.log.read_text().count("process_died") == 0
        unload = pb.RepositoryModelUnloadRequest(model_name="digits")
        async with grpc.aio.insecure_channel(server.address("grpc"), options=OPTIONS) as channel:
            await pb_grpc.GRPCInferenceServiceStub(channel).RepositoryModelUnload(unload)
        now = sample(server, RECYCLED)
        await asyncio.to_thread(until, lambda: sample(server, RECYCLED) > now + 1, 60)
        async with grpc.aio.insecure_channel(server.address("grpc"), options=OPTIONS) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)
        assert {each.reason for each in index.models} == {"unloaded"}


async def test_the_only_proxy_of_a_router_is_replaced(models: Path, tmp_path: Path) -> None:
    with server_of(models, tmp_path) as server:
        file = configuration(tmp_path, server.address("grpc"))
        with started("router", "run", "--config", file, *GRACE, *AGE, folder=tmp_path) as router:
            name = 'coalmine_router_processes_recycled_total{process="proxy-0"}'
            await no_call_fails(router, "data", name)
            assert router.log.read_text().count("process_died") == 0

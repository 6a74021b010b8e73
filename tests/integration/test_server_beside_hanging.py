"""A server with a model that hangs and one that is broken: the others serve, health agrees."""

import asyncio
import threading
import urllib.error
import urllib.request
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as pb
from coalmine_server.config import LoadLimits
from tests.doubles.faults import broken, cut_off
from tests.doubles.server_rig import ServerRig, pixels, serving
from tests.models import Linear, LongWarmUp, config, write_model

SECONDS = 3_000_000  # of a warm-up, in rounds
LIMITS = LoadLimits(timeout_s=60, slow_s=0.5)
GOOD = [f"good-{n}" for n in range(8)]


async def readiness(rig: ServerRig) -> list[bool]:
    """Return what /readyz, ServerReady and health say, the last of both names."""

    def readyz() -> bool:
        try:
            with urllib.request.urlopen(f"http://{rig.http}/readyz") as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    health = health_pb2_grpc.HealthStub(rig.channel)
    said = [await asyncio.to_thread(readyz)]
    said.append((await rig.stub.ServerReady(pb.ServerReadyRequest())).ready)
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        said.append(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return said


async def test_eight_of_ten_serve_and_all_that_tell_of_health_agree(tmp_path: Path) -> None:
    write_model(
        tmp_path,
        "a-hangs",
        {1: LongWarmUp(SECONDS)},
        config(warmup={"runs": 1, "batch_sizes": [1]}),
    )
    broken(tmp_path, "b-broken", cut_off)
    for name in GOOD:
        write_model(tmp_path, name, {1: Linear()})
    async with serving(tmp_path, poll_s=0.2, allow_load=True, loads=LIMITS, grace_s=1) as rig:
        assert await readiness(rig) == [True] * 4
        for name in GOOD:
            assert (await rig.infer(name, pixels()))["logits"].shape == (1, 10)
        index = (await rig.stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        states = {each.name: each.state for each in index}
        assert states["a-hangs"] == "LOADING"
        assert states["b-broken"] == "UNAVAILABLE"
        asked = pb.RepositoryModelUnloadRequest(model_name="a-hangs")
        await rig.stub.RepositoryModelUnload(asked, timeout=10)
        for name in GOOD:
            assert await readiness(rig) == [True] * 4
            asked = pb.RepositoryModelUnloadRequest(model_name=name)
            await rig.stub.RepositoryModelUnload(asked, timeout=10)
        assert await readiness(rig) == [False] * 4, "nothing serves"
        await rig.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=GOOD[0]))
        assert await readiness(rig) == [True] * 4
    for thread in threading.enumerate():
        if thread.name == "a-hangs-1":
            await asyncio.to_thread(thread.join)  # a process can't end while one is inside torch


async def test_a_server_without_a_model_that_serves_says_so_everywhere(tmp_path: Path) -> None:
    async with serving(tmp_path, poll_s=0.1, grace_s=1) as rig:
        assert await readiness(rig) == [False] * 4
        write_model(tmp_path, "digits", {1: Linear()})
        async with asyncio.timeout(20):
            while await readiness(rig) != [True] * 4:
                await asyncio.sleep(0.05)

"""Loading, unloading and the index over gRPC; what each leaves a caller with."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coalmine.inference import inference_pb2 as pb
from coalmine_server.config import Bounds
from tests.doubles.server_rig import ServerRig, pixels, serving
from tests.models import Linear, config, write_model

Code = grpc.StatusCode


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    labelled = config(versions={"all": True}, labels={"stable": 1, "canary": 2})
    write_model(tmp_path, "digits", {1: Linear(), 2: Linear(scale=1.0)}, labelled)
    async with serving(tmp_path, allow_load=True) as running:
        yield running


async def load(rig: ServerRig, name: str, **fields: Any) -> None:
    await rig.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name, **fields))


async def unload(rig: ServerRig, name: str, **fields: Any) -> None:
    await rig.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name, **fields))


async def index(rig: ServerRig, **fields: Any) -> dict[str, tuple[str, str]]:
    found = await rig.stub.RepositoryIndex(pb.RepositoryIndexRequest(**fields))
    return {f"{each.name}/{each.version}": (each.state, each.reason) for each in found.models}


async def health(rig: ServerRig, service: str) -> Any:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_a_model_that_came_later_is_served_once_it_is_loaded(
    rig: ServerRig, tmp_path: Path
) -> None:
    write_model(tmp_path, "later", {1: Linear()})
    with pytest.raises(grpc.aio.AioRpcError, match="model 'later' is unknown"):
        await rig.infer("later", pixels())
    await load(rig, "later")
    assert (await rig.infer("later", pixels()))["logits"][0, 1] == 64
    assert (await index(rig))["later/1"] == ("READY", "")
    assert await health(rig, "model/later") == health_pb2.HealthCheckResponse.SERVING


async def test_an_unloaded_model_is_unavailable_and_nobody_else_is(rig: ServerRig) -> None:
    await unload(rig, "digits", parameters={"unload_dependents": {"bool_param": False}})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.infer("digits", pixels())
    assert refused.value.code() is Code.UNAVAILABLE
    assert refused.value.details() == "model 'digits' version 2 is GONE, not READY: unloaded"
    assert await index(rig) == {
        "digits/1": ("UNAVAILABLE", "unloaded"),
        "digits/2": ("UNAVAILABLE", "unloaded"),
    }
    assert await index(rig, ready=True) == {}
    assert await health(rig, "model/digits") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await health(rig, "") == health_pb2.HealthCheckResponse.SERVING
    await load(rig, "digits")
    assert (await rig.infer("digits", pixels()))["logits"][0, 0] == 64


async def test_a_label_is_taken_as_a_version_by_every_method(rig: ServerRig) -> None:
    for label, first in (("stable", 0), ("canary", 64)):
        answer = await rig.infer("digits", pixels(), model_version=label)
        assert answer["logits"][0, 0] == first
        ready = await rig.stub.ModelReady(pb.ModelReadyRequest(name="digits", version=label))
        assert ready.ready
        asked = pb.ModelMetadataRequest(name="digits", version=label)
        number = {"stable": "1", "canary": "2"}[label]
        assert (await rig.stub.ModelMetadata(asked)).versions == [number]
    with pytest.raises(grpc.aio.AioRpcError, match="no version 'old', only 1, 2, canary, stable"):
        await rig.infer("digits", pixels(), model_version="old")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("nobody", Code.NOT_FOUND, "model 'nobody' is not in the repository"),
        ("", Code.INVALID_ARGUMENT, "'' is not a model's name"),
        ("../digits", Code.INVALID_ARGUMENT, "'../digits' is not a model's name"),
        ("digits/1", Code.INVALID_ARGUMENT, "'digits/1' is not a model's name"),
    ],
)
async def test_a_load_of_what_is_no_model_is_refused(
    rig: ServerRig, name: str, code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await load(rig, name)
    assert refused.value.code() is code
    assert (refused.value.details() or "").startswith(text)


async def test_a_config_or_file_inside_the_call_is_refused(rig: ServerRig) -> None:
    for name in ("config", "file:1/model.pt"):
        with pytest.raises(
            grpc.aio.AioRpcError, match="a model is what its folder says"
        ) as refused:
            await load(rig, "digits", parameters={name: {"string_param": "{}"}})
        assert refused.value.code() is Code.UNIMPLEMENTED


async def test_a_watcher_of_a_model_hears_of_its_end_and_its_return(rig: ServerRig) -> None:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="model/digits"))
    status = health_pb2.HealthCheckResponse
    assert (await watch.read()).status == status.SERVING
    await unload(rig, "digits")
    assert (await watch.read()).status == status.NOT_SERVING
    await load(rig, "digits")
    assert (await watch.read()).status == status.SERVING
    watch.cancel()


async def test_too_much_in_flight_is_shed_at_once_and_says_what_the_bound_is(
    tmp_path: Path,
) -> None:
    write_model(tmp_path, "digits", {1: Linear()})
    async with serving(tmp_path, bounds=Bounds(bytes_in_flight=1000)) as running:
        await running.infer("digits", pixels())
        with pytest.raises(grpc.aio.AioRpcError, match="1000 bytes are in flight") as refused:
            await running.infer("digits", pixels(rows=8))
    assert refused.value.code() is Code.RESOURCE_EXHAUSTED

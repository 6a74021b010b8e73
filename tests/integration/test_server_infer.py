import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import numpy_dtype, to_typed
from tests.doubles.server_rig import ServerRig, infer_request, pixels, serving
from tests.models import (
    IDENTITY_DATATYPES,
    Identity,
    Linear,
    Sequences,
    Unbatched,
    config,
    identity_config,
    write_model,
    write_repository,
)

TOKENS = [{"name": "tokens", "datatype": "INT64", "shape": [-1]}]
LENGTHS = [
    {"name": "doubled", "datatype": "INT64", "shape": [-1]},
    {"name": "length", "datatype": "INT64", "shape": [1]},
]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    write_repository(tmp_path)
    write_model(tmp_path, "identity", {1: Identity()}, identity_config())
    write_model(tmp_path, "sequences", {1: Sequences()}, config(inputs=TOKENS, outputs=LENGTHS))
    write_model(
        tmp_path,
        "unbatched",
        {1: Unbatched()},
        config(
            inputs=[{"name": "points", "datatype": "FP32", "shape": [-1, 2]}],
            outputs=[{"name": "total", "datatype": "FP32", "shape": []}],
            max_batch_size=0,
        ),
    )
    async with serving(tmp_path) as running:
        yield running


async def test_a_raw_request_gets_a_raw_answer(rig: ServerRig) -> None:
    request = infer_request("digits", pixels(2), model_version="1", id="r-7")
    response = await rig.stub.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "r-7")
    assert [each.name for each in response.outputs] == ["logits"]
    assert list(response.outputs[0].shape) == [2, 10]
    assert not response.outputs[0].HasField("contents")
    logits = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(2, 10)
    np.testing.assert_array_equal(logits[1], 64 * np.arange(10))


async def test_a_typed_request_gets_a_typed_answer(rig: ServerRig) -> None:
    request = pb.ModelInferRequest(model_name="digits", model_version="1")
    array = np.ones((1, 64), "f4")
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64], contents=to_typed(array))
    response = await rig.stub.ModelInfer(request)
    assert not response.raw_output_contents
    assert response.outputs[0].contents.fp32_contents[2] == 128


async def test_an_empty_version_is_the_newest(rig: ServerRig) -> None:
    response = await rig.stub.ModelInfer(infer_request("digits", pixels()))
    assert response.model_version == "2"


async def test_every_datatype_goes_over_the_wire_and_back(rig: ServerRig) -> None:
    arrays = {
        f"x_{each.lower()}": np.array([[0, 1], [1, 0]]).astype(numpy_dtype(each))
        for each in IDENTITY_DATATYPES
    }
    outputs = await rig.infer("identity", arrays)
    assert len(outputs) == len(IDENTITY_DATATYPES)
    for name, array in arrays.items():
        np.testing.assert_array_equal(outputs[f"y_{name[2:]}"], array)


async def test_only_the_outputs_that_were_asked_for_come_back(rig: ServerRig) -> None:
    tokens = {"tokens": np.array([[5, 6, 7]])}
    outputs = await rig.infer("sequences", tokens, outputs=[{"name": "length"}])
    assert {name: each.tolist() for name, each in outputs.items()} == {"length": [[3]]}


async def test_a_model_without_a_batch_dimension_takes_its_input_whole(rig: ServerRig) -> None:
    outputs = await rig.infer("unbatched", {"points": np.ones((3, 2), "f4")})
    assert outputs["total"].shape == ()
    assert outputs["total"] == 6


@pytest.mark.parametrize("instances", [1, 2])
async def test_callers_of_a_model_that_can_not_batch_get_each_their_own_answer(
    tmp_path: Path, instances: int
) -> None:
    alone = config(max_batch_size=1, instances=instances)
    write_model(tmp_path, "alone", {1: Linear()}, alone)
    async with serving(tmp_path) as rig, asyncio.TaskGroup() as callers:
        asked = [callers.create_task(rig.infer("alone", pixels(value=n))) for n in range(200)]
    answered = [float(each.result()["logits"][0, 1]) for each in asked]
    assert answered == [64.0 * n for n in range(200)]


async def test_health_and_readiness_are_told(rig: ServerRig) -> None:
    assert (await rig.stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await rig.stub.ServerReady(pb.ServerReadyRequest())).ready

    async def ready(name: str, version: str = "") -> bool:
        asked = pb.ModelReadyRequest(name=name, version=version)
        return (await rig.stub.ModelReady(asked)).ready

    assert await ready("digits")
    assert await ready("digits", "1")
    assert not await ready("digits", "9")
    assert not await ready("nobody")


async def test_metadata_tells_shapes_with_their_batch_dimension(rig: ServerRig) -> None:
    server = await rig.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "coalmine"
    found = await rig.stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"))
    assert list(found.versions) == ["1", "2"]
    assert found.platform == "pytorch_torchscript"
    assert (found.inputs[0].name, found.inputs[0].datatype) == ("pixels", "FP32")
    assert list(found.inputs[0].shape) == [-1, 64]
    unbatched = await rig.stub.ModelMetadata(pb.ModelMetadataRequest(name="unbatched"))
    assert list(unbatched.inputs[0].shape) == [-1, 2]
    assert list(unbatched.outputs[0].shape) == []


async def test_the_config_is_told_in_tritons_words(rig: ServerRig) -> None:
    found = (await rig.stub.ModelConfig(pb.ModelConfigRequest(name="digits"))).config
    assert (found.platform, found.max_batch_size) == ("pytorch_torchscript", 32)
    assert found.version_policy.latest.num_versions == 2
    assert found.input[0].data_type == pb.TYPE_FP32
    assert list(found.output[0].dims) == [10]
    assert found.HasField("dynamic_batching")
    identity = (await rig.stub.ModelConfig(pb.ModelConfigRequest(name="identity"))).config
    assert {each.data_type for each in identity.input} >= {pb.TYPE_BF16, pb.TYPE_BOOL}


async def test_the_index_lists_every_version(rig: ServerRig) -> None:
    index = await rig.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    assert {(each.name, each.version, each.state) for each in index.models} == {
        ("digits", "1", "READY"),
        ("digits", "2", "READY"),
        ("identity", "1", "READY"),
        ("sequences", "1", "READY"),
        ("unbatched", "1", "READY"),
    }


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        (
            "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(model_name="digits"),
            "loading is not offered: it needs --allow-load",
        ),
        (
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(model_name="digits"),
            "unloading is not offered: it needs --allow-load",
        ),
        (
            "RepositoryIndex",
            pb.RepositoryIndexRequest(repository_name="other"),
            "repository_name is not offered: there is one repository",
        ),
    ],
)
async def test_what_is_not_offered_says_so(
    rig: ServerRig, method: str, request_: Any, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await getattr(rig.stub, method)(request_)
    assert (refusal.value.code(), refusal.value.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        text,
    )


async def test_a_tensor_of_many_megabytes_goes_through(tmp_path: Path) -> None:
    wide = config(
        inputs=[{"name": "pixels", "datatype": "FP32", "shape": [64]}], max_batch_size=65_536
    )
    write_model(tmp_path / "wide", "wide", {1: Linear()}, wide)
    async with serving(tmp_path / "wide") as running:
        outputs = await running.infer("wide", pixels(65_536))
    assert outputs["logits"][65_535, 1] == 64

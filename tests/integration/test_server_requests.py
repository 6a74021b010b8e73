"""From the bytes of a request to the model and back, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from torch import Tensor, nn

from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import to_typed
from tests.doubles.server_rig import ServerRig, infer_request, pixels, serving
from tests.models import Linear, Masked, Overwrites, Remembers, Sequences, config, write_model


def declared(name: str, datatype: str, *shape: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


class Image(nn.Module):
    """[3, 224, 224] -> [] and [3, 224, 224]: its sum, and itself plus one."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image.sum((1, 2, 3)), image + 1


class Nothing(nn.Module):
    """Gives nothing where a pixel is below zero, so that warm-up succeeds."""

    def forward(self, pixels: Tensor) -> Tensor | None:
        if float(pixels.min()) < 0:
            return None
        return pixels[:, :10]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    patient: dict[str, Any] = {"batching": {"max_delay": "20ms"}}
    write_model(
        tmp_path, "digits", {1: Linear(), 2: Linear(scale=1.0)}, config(versions={"all": True})
    )
    image = config(
        inputs=[declared("image", "FP32", 3, 224, 224)],
        outputs=[declared("total", "FP32"), declared("brighter", "FP32", 3, 224, 224)],
        max_batch_size=4,
        **patient,
    )
    write_model(tmp_path, "image", {1: Image()}, image)
    masked = config(
        inputs=[declared("values", "FP32", -1), declared("mask", "FP32", -1, optional=True)],
        outputs=[declared("sum", "FP32")],
        **patient,
    )
    write_model(tmp_path, "masked", {1: Masked()}, masked)
    doubled = config(outputs=[declared("doubled", "FP32", 64)], **patient)
    write_model(tmp_path, "overwrites", {1: Overwrites()}, doubled)
    remembers = config(
        inputs=[declared("x", "FP32", 1)], outputs=[declared("y", "FP32", 1)], max_batch_size=1
    )
    write_model(tmp_path, "remembers", {1: Remembers()}, remembers)
    sequences = config(
        inputs=[declared("tokens", "INT64", -1)],
        outputs=[declared("length", "INT64", 1), declared("doubled", "INT64", -1)],
        **patient,
    )
    write_model(tmp_path, "sequences", {1: Sequences()}, sequences)
    write_model(tmp_path, "nothing", {1: Nothing()})
    async with serving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("request_id", ["", "a", "ab", "abc"])
async def test_large_contents_arrive_whole_wherever_they_begin_in_their_message(
    rig: ServerRig, request_id: str
) -> None:
    image = np.random.default_rng(1).random((1, 3, 224, 224), np.float32)
    response = await rig.stub.ModelInfer(infer_request("image", {"image": image}, id=request_id))
    assert response.id == request_id
    assert response.raw_output_contents[1] == (image + 1).tobytes()


async def test_large_requests_of_one_batch_get_their_own_rows(rig: ServerRig) -> None:
    def image(value: int) -> np.ndarray[Any, Any]:
        return np.full((1, 3, 224, 224), value, np.float32)

    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(rig.infer("image", {"image": image(n)}, id="i" * n)) for n in range(8)
        ]
    for number, call in enumerate(calls):
        assert (call.result()["brighter"] == number + 1).all()


async def test_an_output_that_was_not_asked_for_is_not_sent(rig: ServerRig) -> None:
    image = np.ones((1, 3, 224, 224), np.float32)
    request = infer_request("image", {"image": image}, outputs=[{"name": "total"}])
    response = await rig.stub.ModelInfer(request)
    assert response.ByteSize() < 100
    assert len(response.raw_output_contents) == 1


@pytest.mark.parametrize("rows", [1, 2000])
async def test_a_version_appended_to_the_bytes_counts_as_the_router_sets_it(
    tmp_path: Path, rows: int
) -> None:
    content = config(max_batch_size=2000, versions={"all": True})
    write_model(tmp_path / "models", "digits", {1: Linear(), 2: Linear(scale=1.0)}, content)
    data = infer_request("digits", pixels(rows), model_version="1").SerializeToString()
    async with serving(tmp_path / "models") as running:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = running.channel.unary_unary(f"/{MODEL_INFER}")
        answer = pb.ModelInferResponse.FromString(await call(data + b"\x12\x012"))
    assert answer.model_version == "2"


async def test_a_request_that_asks_for_it_is_answered_in_the_other_form(rig: ServerRig) -> None:
    asked: dict[str, Any] = {"binary_data_output": {"bool_param": False}}
    request = infer_request("digits", pixels(), parameters=asked)
    response = await rig.stub.ModelInfer(request)
    assert not response.raw_output_contents
    assert len(response.outputs[0].contents.fp32_contents) == 10
    typed = pb.ModelInferRequest(model_name="digits")
    typed.inputs.add(
        name="pixels", datatype="FP32", shape=[1, 64], contents=to_typed(pixels()["pixels"])
    )
    typed.parameters["binary_data_output"].bool_param = True
    assert len((await rig.stub.ModelInfer(typed)).raw_output_contents[0]) == 40


async def test_optional_inputs_may_be_absent_and_batches_keep_the_two_apart(rig: ServerRig) -> None:
    values = np.array([[1, 2, 3]], "f4")
    mask = np.array([[0, 1, 0]], "f4")
    async with asyncio.TaskGroup() as group:
        without = [group.create_task(rig.infer("masked", {"values": values})) for _ in range(6)]
        both = {"values": values, "mask": mask}
        with_mask = [group.create_task(rig.infer("masked", both)) for _ in range(6)]
    assert [each.result()["sum"].tolist() for each in without] == [[6]] * 6
    assert [each.result()["sum"].tolist() for each in with_mask] == [[2]] * 6


async def test_requests_of_different_lengths_are_answered_in_their_own(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        calls = {
            size: group.create_task(
                rig.infer("sequences", {"tokens": np.full((2, size), size, "i8")})
            )
            for size in (1, 2, 3, 3000, 50_000)
        }
    for size, call in calls.items():
        assert call.result()["length"].tolist() == [[size], [size]]
        assert (call.result()["doubled"] == 2 * size).all()


@pytest.mark.parametrize("rows", [1, 32])
async def test_a_model_that_writes_into_its_input_disturbs_nobody(
    rig: ServerRig, rows: int
) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(rig.infer("overwrites", pixels(rows, value=float(number))))
            for number in range(8)
        ]
    for number, call in enumerate(calls):
        assert (call.result()["doubled"] == 2 * number).all()


async def test_a_model_that_gives_its_own_memory_gives_each_caller_what_was_in_it(
    rig: ServerRig,
) -> None:
    async def remembered(value: float) -> float:
        outputs = await rig.infer("remembers", {"x": np.array([[value]], "f4")})
        return float(outputs["y"][0, 0])

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(remembered(float(number))) for number in range(200)]
    assert [call.result() for call in calls] == [float(number) for number in range(200)]


async def test_a_model_that_gives_nothing_is_internal_and_says_so(rig: ServerRig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await rig.infer("nothing", pixels(value=-1.0))
    assert refusal.value.code() is grpc.StatusCode.INTERNAL
    assert refusal.value.details() == (
        "model 'nothing' version 1: output 'logits': expected a tensor, the model gave None"
    )


@pytest.mark.parametrize("count", [0, 2, 100_000])
async def test_raw_contents_that_are_not_as_many_as_the_inputs_are_refused(
    rig: ServerRig, count: int
) -> None:
    request = infer_request("digits", pixels())
    request.raw_input_contents.extend([b"x" * 10] * (count - 1))
    if not count:
        request.ClearField("raw_input_contents")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await rig.stub.ModelInfer(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT

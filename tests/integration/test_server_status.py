"""Every row of the protocol's table of status codes, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from torch import Tensor, nn

from coalmine.clock import SystemClock
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.listener.health import Health
from coalmine.process.answer_gate import AnswerGate
from coalmine.tensors import Array
from coalmine_server.config import Bounds, ServerConfig
from coalmine_server.grpc_front.listener import ServerListener
from coalmine_server.overview import LocalOverview
from tests.doubles.model_rig import ModelRig
from tests.doubles.server_rig import ServerRig, infer_request, pixels, serving
from tests.doubles.servicers import servicer_over
from tests.models import Lies, Linear, Raises, config, write_model

Code = grpc.StatusCode


class Wide(nn.Module):
    """[64] -> [5000]: 20 kB."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, :1].repeat(1, 5000)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    write_model(tmp_path, "digits", {2: Linear()})
    # Nothing runs here before 32 rows are there: what waits, waits for as long as a test likes.
    patient = config(batching={"max_delay": "1h", "max_queue_rows": 32})
    write_model(tmp_path, "patient", {1: Linear()}, patient)
    write_model(tmp_path, "raises", {1: Raises()})
    async with serving(tmp_path) as running:
        yield running


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def details(error: grpc.aio.AioRpcError) -> str:
    return error.details() or ""


async def waiting_rows(rig: ServerRig, rows: int) -> None:
    """Return once the patient model's queue holds `rows`."""
    line = f'coalmine_server_queue_rows{{model="patient",version="1"}} {float(rows)}'
    async with asyncio.timeout(10):
        while line not in (await rig.metrics()).splitlines():
            pass


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nobody", "", "model 'nobody' is unknown"),
        ("digits", "7", "model 'digits' has no version '7', only 2"),
    ],
)
async def test_an_unknown_model_or_version_is_not_found(
    rig: ServerRig, model: str, version: str, text: str
) -> None:
    error = await refusal(rig.infer(model, pixels(), model_version=version))
    assert (error.code(), details(error)) == (Code.NOT_FOUND, text)
    asked = pb.ModelMetadataRequest(name=model, version=version)
    assert (await refusal(rig.stub.ModelMetadata(asked))).code() is Code.NOT_FOUND
    asked_config = pb.ModelConfigRequest(name=model, version=version)
    assert (await refusal(rig.stub.ModelConfig(asked_config))).code() is Code.NOT_FOUND


async def test_a_model_that_is_loading_is_unavailable(tmp_path: Path) -> None:
    write_model(tmp_path, "digits", {2: Linear()})
    rig = ModelRig(tmp_path)
    rig.control.register_models(lenient=False)  # and nothing is loaded so far
    async with answering(rig) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        error = await refusal(stub.ModelInfer(infer_request("digits", pixels())))
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="digits"))).ready
        index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
        only_ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert error.code() is Code.UNAVAILABLE
    assert details(error) == "model 'digits' version 2 is LOADING, not READY"
    assert [each.state for each in index.models] == ["LOADING"]
    assert not only_ready.models


@asynccontextmanager
async def answering(rig: ModelRig) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a channel to a service over what `rig` has, whatever its state."""
    gate = AnswerGate()
    own = LocalOverview(rig.registry, rig.metrics.memory_by_device)
    servicer = servicer_over(rig.registry, rig.control, own, metrics=rig.metrics, gate=gate)
    settings = ServerConfig(Path(), "127.0.0.1:0", "127.0.0.1:0", grace_s=1)
    listener = ServerListener(settings, Health(), servicer, None, access=None, clock=SystemClock())
    addresses = await listener.open()
    async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
        yield channel
    await listener.close(gate, servicer.drain)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (
            {"pixels": np.zeros((1, 63), "f8")},
            "input 'pixels' expects FP32 [-1, 64], got FP64 [1, 63]",
        ),
        ({"image": np.zeros((1, 64), "f4")}, "input 'image' is unknown, expected 'pixels'"),
        ({}, "input 'pixels' is missing"),
        (pixels(33), "expects 1 to 32 rows, got 33"),
    ],
)
async def test_a_request_that_does_not_fit_is_an_invalid_argument(
    rig: ServerRig, arrays: dict[str, Array], text: str
) -> None:
    error = await refusal(rig.infer("digits", arrays))
    assert error.code() is Code.INVALID_ARGUMENT
    assert details(error) == f"model 'digits' version 2: {text}"


async def test_wrong_bytes_outputs_and_parameters_are_invalid_arguments(rig: ServerRig) -> None:
    short = infer_request("digits", pixels())
    short.raw_input_contents[0] = b"short"
    mixed = infer_request("digits", pixels())
    mixed.inputs[0].contents.fp32_contents.append(1.0)
    unknown = infer_request("digits", pixels(), outputs=[{"name": "scores"}])
    typed = infer_request("digits", pixels(), parameters={"timeout": {"string_param": "1s"}})
    for request in (short, mixed, unknown, typed):
        assert (await refusal(rig.stub.ModelInfer(request))).code() is Code.INVALID_ARGUMENT


async def test_a_full_queue_is_exhausted_and_never_unavailable(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(rig.infer("patient", pixels(20)))
        await waiting_rows(rig, 20)
        error = await refusal(rig.infer("patient", pixels(20)))
        group.create_task(rig.infer("patient", pixels(12)))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "the queue is full, 20 rows wait, at most 32 may" in details(error)
    assert first.result()["logits"].shape == (20, 10)


async def test_a_message_over_the_limit_is_exhausted(rig: ServerRig) -> None:
    huge = {"pixels": np.zeros((300_000, 64), "f4")}
    assert (await refusal(rig.infer("digits", huge))).code() is Code.RESOURCE_EXHAUSTED


async def test_an_answer_over_the_limit_is_exhausted_and_ends_no_stream(tmp_path: Path) -> None:
    wide = config(outputs=[{"name": "wide", "datatype": "FP32", "shape": [5000]}])
    write_model(tmp_path, "wide", {1: Wide()}, wide)
    write_model(tmp_path, "digits", {1: Linear()})
    request = infer_request("wide", pixels())
    async with serving(tmp_path, bounds=Bounds(message_bytes=10_000)) as rig:
        error = await refusal(rig.stub.ModelInfer(request))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert "model 'wide' version 1: the answer takes 200" in details(error)
        stream = rig.stub.ModelStreamInfer(iter([request, infer_request("digits", pixels())]))
        refused, answered = [each async for each in stream]
        assert "the answer takes 200" in refused.error_message
        assert not answered.error_message
        counted = 'requests_total{code="RESOURCE_EXHAUSTED",model="wide",version="1"} 2.0'
        assert counted in await rig.metrics()


async def test_a_time_out_spent_in_the_queue_is_the_deadlines_and_the_model_does_not_run(
    rig: ServerRig,
) -> None:
    parameters = {"timeout": {"int64_param": 20_000}}
    error = await refusal(rig.infer("patient", pixels(), parameters=parameters))
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert "model 'patient' version 1: the deadline passed in the queue" in details(error)
    assert 'batch_rows_count{model="patient",version="1"} 0.0' in await rig.metrics()


async def test_the_callers_own_deadline_frees_its_place_in_the_queue(rig: ServerRig) -> None:
    error = await refusal(rig.infer("patient", pixels(20), timeout_s=0.05))
    assert error.code() is Code.DEADLINE_EXCEEDED
    await waiting_rows(rig, 0)
    counted = 'requests_total{code="DEADLINE_EXCEEDED",model="patient",version="1"} 1.0'
    async with asyncio.timeout(10):
        while counted not in await rig.metrics():
            pass


async def test_a_request_can_not_lengthen_its_deadline(rig: ServerRig) -> None:
    parameters = {"timeout": {"int64_param": 3_600_000_000}}
    error = await refusal(rig.infer("patient", pixels(), timeout_s=0.05, parameters=parameters))
    assert error.code() is Code.DEADLINE_EXCEEDED


async def test_a_cancelled_call_leaves_the_queue_and_its_batch_mates_alone(rig: ServerRig) -> None:
    given_up = rig.stub.ModelInfer(infer_request("patient", pixels(4)))
    async with asyncio.TaskGroup() as group:
        await waiting_rows(rig, 4)
        mate = group.create_task(rig.infer("patient", pixels(16, value=2.0)))
        await waiting_rows(rig, 20)
        given_up.cancel()
        await waiting_rows(rig, 16)
        group.create_task(rig.infer("patient", pixels(16)))
    assert mate.result()["logits"][15, 1] == 128
    assert await given_up.code() is Code.CANCELLED
    assert 'code="CANCELLED",model="patient",version="1"} 1.0' in await rig.metrics()


async def test_a_forward_that_raises_is_internal_and_says_what_was_raised(rig: ServerRig) -> None:
    error = await refusal(rig.infer("raises", pixels(value=-1.0)))
    assert error.code() is Code.INTERNAL
    assert details(error) == "model 'raises' version 1: ValueError: negative pixel"
    assert (await rig.infer("raises", pixels()))["logits"].shape == (1, 10)


async def test_an_undeclared_output_is_internal(tmp_path: Path) -> None:
    # Warm-up would refuse it, so it lies only where more rows come than are warmed.
    content = config(warmup={"batch_sizes": [1]})
    write_model(tmp_path, "some", {1: LiesLater()}, content)
    async with serving(tmp_path) as running:
        error = await refusal(running.infer("some", pixels(2)))
    assert error.code() is Code.INTERNAL
    assert "'logits' is declared FP32 [2, 10], the model gave FP32 [2, 9]" in details(error)


class LiesLater(Lies):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, : (10 if pixels.shape[0] == 1 else 9)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_a_number_that_is_not_finite_is_an_answer(rig: ServerRig, value: float) -> None:
    logits = (await rig.infer("digits", pixels(value=value)))["logits"]
    assert not np.isfinite(logits).all()


async def test_a_server_that_drains_takes_no_more_and_finishes_what_it_has(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(rig.infer("patient", pixels(16)))
        await waiting_rows(rig, 16)
        second = group.create_task(rig.infer("patient", pixels(16)))
        await first
        await second
    rig.stop.ask("test")
    error = None
    async with asyncio.timeout(10):
        while error is None:
            try:
                await rig.infer("digits", pixels())
            except grpc.aio.AioRpcError as refused:
                error = refused
    assert error.code() is Code.UNAVAILABLE

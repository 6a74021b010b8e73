"""What stands beside the protocol: health, metrics, and a client nobody here wrote."""

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.doubles.server_rig import ServerRig, pixels, serving
from tests.models import Linear, config, write_model

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    write_model(tmp_path, "digits", {1: Linear(), 2: Linear()}, config(versions={"all": True}))
    async with serving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "model/digits"])
async def test_health_serves_by_process_service_and_model(rig: ServerRig, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == SERVING


async def test_the_health_of_an_unknown_model_is_not_found(rig: ServerRig) -> None:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Check(health_pb2.HealthCheckRequest(service="model/nobody"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_whoever_watches_health_hears_of_the_end_and_does_not_hold_it_up(
    rig: ServerRig,
) -> None:
    def watching() -> Any:
        request = health_pb2.HealthCheckRequest(service="model/digits")
        return health_pb2_grpc.HealthStub(rig.channel).Watch(request)

    first, second = watching(), watching()
    assert [(await each.read()).status for each in (first, second)] == [SERVING, SERVING]
    second.cancel()  # which is not to cost the first its news
    rig.stop.ask("test")
    async with asyncio.timeout(5):  # the grace is 10 s
        assert (await first.read()).status == NOT_SERVING
        assert await first.read() is grpc.aio.EOF


def fetched(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_http_tells_health_readiness_and_metrics(rig: ServerRig) -> None:
    await rig.infer("digits", pixels(3), model_version="1")
    for path in ("healthz", "readyz"):
        assert (await asyncio.to_thread(fetched, f"http://{rig.http}/{path}"))[0] == 200
    _, text = await asyncio.to_thread(fetched, f"http://{rig.http}/metrics")
    lines = text.splitlines()
    labels = 'model="digits",version="1"'
    assert f'coalmine_server_requests_total{{code="OK",{labels}}} 1.0' in lines
    assert f"coalmine_server_batch_rows_sum{{{labels}}} 3.0" in lines
    assert f"coalmine_server_queue_seconds_count{{{labels}}} 1.0" in lines
    assert f"coalmine_server_compute_seconds_count{{{labels}}} 1.0" in lines
    assert f"coalmine_server_queue_rows{{{labels}}} 0.0" in lines
    assert "coalmine_server_in_flight 0.0" in lines


TRITON = """
import sys
import numpy as np
import tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
assert client.get_server_metadata().name == "coalmine"
assert [each.name for each in client.get_model_metadata("digits").inputs] == ["pixels"]
assert client.get_model_config("digits").config.max_batch_size == 32
assert len(client.get_model_repository_index().models) == 2
pixels = triton.InferInput("pixels", [2, 64], "FP32")
pixels.set_data_from_numpy(np.ones((2, 64), np.float32))
wanted = [triton.InferRequestedOutput("logits")]
more = {"request_id": "r", "timeout": 10**7, "priority": 1}
answer = client.infer("digits", [pixels], "1", outputs=wanted, **more)
np.testing.assert_array_equal(answer.as_numpy("logits")[1], 64 * np.arange(10))
assert answer.get_response().id == "r"
try:
    client.infer("digits", [pixels], "9")
except triton.InferenceServerException as error:
    assert error.status() == "StatusCode.NOT_FOUND", error
else:
    raise AssertionError
print("talked")
"""


async def test_tritonclient_talks_to_the_server(rig: ServerRig) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", TRITON, rig.address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "talked\n", done.stderr

"""A model that takes longer than its callers wait: what they get, and what everybody else gets."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from coalmine.inference import inference_pb2 as pb
from tests.doubles.server_rig import ServerRig, pixels, serving
from tests.models import Linear, Slow, config, write_model

Code = grpc.StatusCode
ROUNDS = 1_500_000  # of Slow: seconds
WAITS_S = 0.4


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    write_model(tmp_path, "slow", {1: Slow()}, config(max_batch_size=1))
    write_model(tmp_path, "digits", {1: Linear()})
    async with serving(tmp_path) as running:
        yield running


async def code_of(rig: ServerRig, value: float) -> tuple[grpc.StatusCode, float]:
    """Return how a call to the slow model ends, and after how many seconds."""
    began_s = time.monotonic()
    try:
        await rig.infer("slow", pixels(value=value), timeout_s=WAITS_S)
        code = Code.OK
    except grpc.aio.AioRpcError as error:
        code = error.code()
    return code, time.monotonic() - began_s


async def test_a_forward_that_hangs_holds_up_nobody_past_a_deadline(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(code_of(rig, ROUNDS))
        await rig.infer("digits", pixels(), timeout_s=5)  # behind it on the same connection
        waiting = [group.create_task(code_of(rig, 0)) for _ in range(3)]
        answer = await rig.infer("digits", pixels(), timeout_s=5)
        assert answer["logits"][0, 1] == 64, "another model answers meanwhile"
    for code, took_s in [running.result(), *(each.result() for each in waiting)]:
        assert code is Code.DEADLINE_EXCEEDED
        assert took_s < 2 * WAITS_S


async def test_once_it_has_ended_the_model_answers_again_and_the_counts_are_right(
    rig: ServerRig,
) -> None:
    assert (await code_of(rig, ROUNDS))[0] is Code.DEADLINE_EXCEEDED
    answer = await rig.infer("slow", pixels(value=0), timeout_s=30)
    assert answer["logits"].shape == (1, 10)
    asked = pb.ModelStatisticsRequest(name="slow")
    (told,) = (await rig.stub.ModelStatistics(asked)).model_stats
    assert (told.inference_stats.success.count, told.inference_stats.fail.count) == (1, 1)
    assert told.execution_count == 2, "the one that nobody waited for ran, too"

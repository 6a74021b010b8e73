"""ModelStatistics and /metrics, over the same calls: they count the same, and add up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from coalmine.inference import inference_pb2 as pb
from tests.doubles.server_rig import ServerRig, infer_request, pixels, serving
from tests.models import Linear, Raises, Slow, config, write_model

Code = grpc.StatusCode
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    policy = config(versions={"latest": 2}, batching={"max_delay": "20ms"})
    write_model(tmp_path, "digits", {1: Linear(), 2: Linear(scale=0.001)}, policy)
    write_model(tmp_path, "raises", {1: Raises()}, config(batching={"max_delay": "20ms"}))
    write_model(tmp_path, "slow", {1: Slow()}, config(instances=2))
    async with serving(tmp_path) as running:
        yield running


async def statistics(rig: ServerRig, name: str = "", version: str = "") -> list[pb.ModelStatistics]:
    request = pb.ModelStatisticsRequest(name=name, version=version)
    return list((await rig.stub.ModelStatistics(request)).model_stats)


async def metrics(rig: ServerRig) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every value by its name and its labels' values, those in the alphabet's order."""

    families = text_string_to_metric_families(await rig.metrics())
    return {
        (
            sample.name.removeprefix("coalmine_server_"),
            tuple(dict(sorted(sample.labels.items())).values()),
        ): sample.value
        for family in families
        for sample in family.samples
    }


async def all_answered(rig: ServerRig) -> None:
    """Return once the server has counted every call, the given up too."""
    async with asyncio.timeout(10):
        while (await metrics(rig))["in_flight", ()]:
            pass


async def code_of(call: Any) -> Code:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


async def test_each_model_and_version_is_counted_apart(rig: ServerRig) -> None:
    await rig.infer("digits", pixels(3), model_version="1")
    await rig.infer("digits", pixels(1))
    every = {(each.name, each.version): each.inference_count for each in await statistics(rig)}
    assert every == {("digits", "1"): 3, ("digits", "2"): 1, ("raises", "1"): 0, ("slow", "1"): 0}
    assert [each.version for each in await statistics(rig, "digits")] == ["1", "2"]
    assert [each.version for each in await statistics(rig, "digits", "2")] == ["2"]


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("nobody", "", Code.NOT_FOUND),
        ("digits", "9", Code.NOT_FOUND),
        ("", "1", Code.INVALID_ARGUMENT),
    ],
)
async def test_statistics_of_what_there_is_not_are_refused(
    rig: ServerRig, name: str, version: str, code: Code
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await statistics(rig, name, version)
    assert caught.value.code() is code


async def test_a_version_tells_its_memory_and_when_it_last_ran(rig: ServerRig) -> None:
    await rig.infer("digits", pixels())
    (counted,) = await statistics(rig, "digits", "2")
    (memory,) = counted.memory_usage
    assert (memory.type, memory.byte_size) == ("CPU", 40), "ten factors of FP32"
    assert counted.last_inference > 1_500_000_000_000
    assert (await metrics(rig))["memory_bytes", ("cpu", "digits", "2")] == 40


async def call_in_all_ways(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        for value, rows in [(1.0, 1), (-1.0, 2), (1.0, 3), (1.0, 33), (1.0, 4)] * 6:
            group.create_task(code_of(rig.infer("raises", pixels(rows, value=value))))
        for _ in range(3):
            request = infer_request("raises", pixels())
            group.create_task(code_of(rig.stub.ModelInfer(request, timeout=0.001)))


async def test_whatever_becomes_of_the_calls_the_figures_add_up(rig: ServerRig) -> None:
    """Batches, poison in a batch, refusals and cancelled calls, all at once."""
    with capture_logs():
        await call_in_all_ways(rig)
    await all_answered(rig)
    (counted,) = await statistics(rig, "raises")
    shown = await metrics(rig)
    stats = counted.inference_stats
    calls = {
        labels[0]: value
        for (name, labels), value in shown.items()
        if name == "requests_total" and labels[1] == "raises"
    }
    assert stats.success.count == calls["OK"] == 18
    assert stats.fail.count == sum(calls.values()) - calls["OK"]
    assert (calls["INTERNAL"], calls["INVALID_ARGUMENT"]) == (6, 6)
    assert stats.queue.count == stats.compute_infer.count == stats.compute_input.count >= 18
    sizes = {each.batch_size: each.compute_infer.count for each in counted.batch_stats}
    assert sum(sizes.values()) == counted.execution_count
    assert sum(size * count for size, count in sizes.items()) == counted.inference_count
    key = ("raises", "1")
    assert shown["queue_seconds_count", key] == stats.queue.count
    assert shown["queue_seconds_sum", key] == pytest.approx(stats.queue.ns / 1e9)
    assert shown["compute_seconds_count", key] == counted.execution_count
    assert shown["batch_rows_sum", key] == counted.inference_count
    assert (shown["in_flight", ()], shown["queue_rows", key], shown["queue_bytes", key]) == (0,) * 3


async def test_the_parts_of_a_call_take_no_longer_than_the_whole(rig: ServerRig) -> None:
    for _ in range(5):
        await rig.infer("slow", pixels(value=300.0))
    (counted,) = await statistics(rig, "slow")
    stats = counted.inference_stats
    parts = [stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output]
    assert all(each.count == 5 for each in parts)
    assert stats.compute_infer.ns > stats.compute_input.ns > 0
    assert 0 < sum(each.ns for each in parts) <= stats.success.ns


async def test_a_forward_that_outlives_its_deadline_is_counted_once_and_harms_no_other(
    rig: ServerRig,
) -> None:
    hanging = rig.stub.ModelInfer(infer_request("slow", pixels(value=300_000.0)), timeout=0.2)
    assert await code_of(hanging) is Code.DEADLINE_EXCEEDED
    await rig.infer("slow", pixels())
    await all_answered(rig)
    shown = await metrics(rig)
    assert shown["requests_total", ("DEADLINE_EXCEEDED", "slow", "1")] == 1
    assert shown["requests_total", ("OK", "slow", "1")] == 1
    assert (shown["in_flight", ()], shown["queue_rows", ("slow", "1")]) == (0, 0)


async def test_loads_are_counted_and_timed(rig: ServerRig) -> None:
    shown = await metrics(rig)
    assert shown["model_loads_total", ("digits", "ok")] == 2
    assert shown["model_loads_total", ("digits", "failed")] == 0
    assert 0 < shown["model_load_seconds", ("digits", "1")] < 60


async def test_a_models_failure_is_logged_once_with_the_callers_trace(rig: ServerRig) -> None:
    with capture_logs() as logs:
        request = infer_request("raises", pixels(value=-1.0))
        assert await code_of(rig.stub.ModelInfer(request, metadata=TRACEPARENT)) is Code.INTERNAL
    (log,) = [each for each in logs if each["event"] == "model_failed"]
    assert (log["trace_id"], log["span_id"]) == (TRACE, CALLER)
    assert "negative pixel" in log["reason"]
    assert log["exc_info"] is not None, "where in the model it was"

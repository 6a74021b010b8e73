"""A version's counters as the ModelStatistics message of Triton's protocol."""

from collections.abc import Mapping

from coalmine.inference import inference_pb2 as pb
from coalmine_server.figures.statistics import ComputeTimes, VersionStatistics


def statistics_of(
    model: str, version: str, counted: VersionStatistics, memory: Mapping[str, int]
) -> pb.ModelStatistics:
    """Return the message; `memory` is in bytes by device: "cpu", "cuda:0"."""
    return pb.ModelStatistics(
        name=model,
        version=version,
        last_inference=counted.last_inference_ms,
        inference_count=counted.inference_count,
        execution_count=counted.execution_count,
        inference_stats=_infer_stats(counted),
        batch_stats=[_batch_stats(size, counted.by_size[size]) for size in sorted(counted.by_size)],
        memory_usage=[_memory_usage(device, size) for device, size in memory.items()],
    )


def _infer_stats(counted: VersionStatistics) -> pb.InferStatistics:
    ran = counted.requests
    return pb.InferStatistics(
        success=_statistic_duration(counted.success_count, counted.success_ns),
        fail=_statistic_duration(counted.fail_count, counted.fail_ns),
        queue=_statistic_duration(ran.count, counted.queue_ns),
        compute_input=_statistic_duration(ran.count, ran.input_ns),
        compute_infer=_statistic_duration(ran.count, ran.infer_ns),
        compute_output=_statistic_duration(ran.count, ran.output_ns),
    )


def _batch_stats(size: int, ran: ComputeTimes) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=size,
        compute_input=_statistic_duration(ran.count, ran.input_ns),
        compute_infer=_statistic_duration(ran.count, ran.infer_ns),
        compute_output=_statistic_duration(ran.count, ran.output_ns),
    )


def _statistic_duration(count: int, ns: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=ns)


def _memory_usage(device: str, size: int) -> pb.MemoryUsage:
    kind, _, number = device.partition(":")
    return pb.MemoryUsage(
        type="GPU" if kind == "cuda" else "CPU", id=int(number or 0), byte_size=size
    )

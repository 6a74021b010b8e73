"""Counters, gauges and histograms as /metrics writes them.

Their names and labels are a contract: dashboards and alerts read them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import Metric

from coalmine.process.metric_families import MetricFamilies, buckets
from coalmine_server.figures.statistics import BOUNDS_NS, ComputeTimes, VersionStatistics

Key = tuple[str, str]

_FAMILIES: Final = MetricFamilies("coalmine_server")
_VERSION: Final = ("model", "version")
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def request_metrics(versions: Iterable[tuple[Key, VersionStatistics]]) -> Iterator[Metric]:
    """Return the counters of each version; model and version are empty where unknown."""
    codes = _FAMILIES.counter("requests", "ModelInfer calls by status code.", *_VERSION, "code")
    queue = _FAMILIES.histogram(
        "queue_seconds", "Time a request that succeeded waited for its batch.", *_VERSION
    )
    compute = _FAMILIES.histogram("compute_seconds", "Time a batch ran.", *_VERSION)
    rows = _FAMILIES.histogram("batch_rows", "Rows in a batch.", *_VERSION)
    for key, counted in versions:
        for code, count in counted.by_code.copy().items():
            codes.add_metric([*key, code], count)
        if key == ("", ""):
            continue
        computed = counted.by_size.copy()
        queue.add_metric(key, _time_buckets(counted.queue_buckets), counted.queue_ns / 1e9)
        compute.add_metric(key, _time_buckets(counted.compute_buckets), _total_ns(computed) / 1e9)
        rows.add_metric(key, _rows(computed), sum(n * each.count for n, each in computed.items()))
    yield from (codes, queue, compute, rows)


def queue_metrics(waiting: Iterable[tuple[Key, int, int]]) -> Iterator[Metric]:
    """Return the rows and bytes that wait for each version that is served."""
    rows = _FAMILIES.gauge("queue_rows", "Rows that wait.", *_VERSION)
    size = _FAMILIES.gauge("queue_bytes", "Bytes of the inputs that wait.", *_VERSION)
    for key, waiting_rows, waiting_bytes in waiting:
        rows.add_metric(key, waiting_rows)
        size.add_metric(key, waiting_bytes)
    yield from (rows, size)


def load_seconds_metric(took: Iterable[tuple[Key, float]]) -> Metric:
    """Return how long each version that is served took to load."""
    family = _FAMILIES.gauge(
        "model_load_seconds", "Time the last load took, warm-up included.", *_VERSION
    )
    for key, seconds in took:
        family.add_metric(key, seconds)
    return family


def memory_metric(used: Iterable[tuple[Key, Mapping[str, int]]]) -> Metric:
    """Return the memory of each version that is served, by device."""
    family = _FAMILIES.gauge("memory_bytes", "Memory of a version's weights.", *_VERSION, "device")
    for key, devices in used:
        for device, size in devices.items():
            family.add_metric([*key, device], size)
    return family


def load_metrics(models: Iterable[tuple[str, int, int, int]]) -> Iterator[Metric]:
    """Return loads that succeeded, loads that failed, and unloads, by model."""
    loaded = _FAMILIES.counter("model_loads", "Versions loaded.", "model", "result")
    unloaded = _FAMILIES.counter("model_unloads", "Versions unloaded.", "model")
    for model, ok, failed, unloads in models:
        loaded.add_metric([model, "ok"], ok)
        loaded.add_metric([model, "failed"], failed)
        unloaded.add_metric([model], unloads)
    yield from (loaded, unloaded)


def versions_dropped_metric(count: int) -> Metric:
    """Return how many versions' counters were given up for room."""
    text = "Unloaded versions whose counters were given up."
    return _FAMILIES.single_counter("versions_dropped", text, count)


def in_flight(calls: int, size: int | None) -> Iterator[Metric]:
    """Return the calls without an answer yet, and the bytes of their requests."""
    text = "ModelInfer calls that are not answered yet."
    yield _FAMILIES.single_gauge("in_flight", text, calls)
    if size is not None:
        text = "Bytes of requests in flight and of unread answers."
        yield _FAMILIES.single_gauge("in_flight_bytes", text, size)


def stuck_metrics(threads: Mapping[str, int]) -> Iterator[Metric]:
    """Return how many threads of each model go on after their end."""
    family = _FAMILIES.gauge("stuck_threads", "Threads that were told to end and go on.", "model")
    for model, count in threads.items():
        family.add_metric([model], count)
    yield family


def span_metrics(totals: Mapping[str, int]) -> Iterator[Metric]:
    """Return the fates of finished spans."""
    text = "Finished spans, by what became of them."
    yield _FAMILIES.counter_by("result", "spans", text, totals)


# ---------------------------------------------------------------- buckets


def _time_buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    return buckets([bound / 1e9 for bound in BOUNDS_NS], counts)


def _rows(by_size: Mapping[int, ComputeTimes]) -> list[tuple[str, float]]:
    counts = [0] * (len(_ROWS) + 1)
    for size, computed in by_size.items():
        counts[bisect_left(_ROWS, size)] += computed.count
    return buckets(_ROWS, counts)


def _total_ns(by_size: Mapping[int, ComputeTimes]) -> int:
    return sum(each.input_ns + each.infer_ns + each.output_ns for each in by_size.values())

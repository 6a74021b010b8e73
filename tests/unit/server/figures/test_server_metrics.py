import threading
from dataclasses import dataclass

import pytest
from prometheus_client.exposition import generate_latest

from coalmine_server.figures.metrics import Metrics

MS = 1_000_000


@dataclass(eq=False)
class FakeQueue:
    queue_rows: int = 0
    queue_bytes: int = 0


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"coalmine_server_{name}", labels)


def of_m1(metrics: Metrics, name: str, **labels: str) -> float | None:
    return value(metrics, name, model="m", version="1", **labels)


def test_calls_are_counted_by_code() -> None:
    metrics = Metrics()
    version = metrics.ensure_statistics("m", "1")
    version.count_answer("OK", 5)
    version.count_answer("OK", 5)
    version.count_answer("INTERNAL", 5)
    metrics.unknown_counter()("NOT_FOUND", 5)
    assert of_m1(metrics, "requests_total", code="OK") == 2
    assert of_m1(metrics, "requests_total", code="INTERNAL") == 1
    assert value(metrics, "requests_total", model="", version="", code="NOT_FOUND") == 1


def test_what_ran_is_shown_in_cumulative_buckets_of_seconds_and_rows() -> None:
    metrics = Metrics()
    version = metrics.ensure_statistics("m", "1")
    version.count_batch(3, [MS, 20 * MS], input_ns=MS, infer_ns=MS, output_ns=2 * MS, ended_ms=1)
    version.count_batch(2000, [60_000 * MS], input_ns=0, infer_ns=0, output_ns=0, ended_ms=1)
    queue = {le: of_m1(metrics, "queue_seconds_bucket", le=le) for le in ("0.001", "0.025", "+Inf")}
    assert queue == {"0.001": 1, "0.025": 2, "+Inf": 3}
    assert of_m1(metrics, "queue_seconds_count") == 3
    assert of_m1(metrics, "queue_seconds_sum") == pytest.approx(60.021)
    assert of_m1(metrics, "compute_seconds_sum") == pytest.approx(0.004)
    assert of_m1(metrics, "compute_seconds_count") == 2
    rows = {le: of_m1(metrics, "batch_rows_bucket", le=le) for le in ("2.0", "4.0", "+Inf")}
    assert rows == {"2.0": 0, "4.0": 1, "+Inf": 2}
    assert of_m1(metrics, "batch_rows_sum") == 2003


def test_what_is_watched_is_read_when_somebody_scrapes() -> None:
    metrics = Metrics()
    queue, totals = FakeQueue(3, 30), {"exported": 5}
    metrics.watch_queue("m", "1", queue)
    metrics.watch_in_flight(lambda: 7, lambda: 700)
    metrics.watch_spans(lambda: totals)
    queue.queue_rows = 4
    totals["exported"] = 6
    assert of_m1(metrics, "queue_rows") == 4
    assert of_m1(metrics, "queue_bytes") == 30
    assert value(metrics, "in_flight") == 7
    assert value(metrics, "in_flight_bytes") == 700
    assert value(metrics, "spans_total", result="exported") == 6


def test_bytes_in_flight_are_not_shown_where_nobody_counts_them() -> None:
    metrics = Metrics()
    metrics.watch_in_flight(lambda: 0)
    assert value(metrics, "in_flight") == 0
    assert value(metrics, "in_flight_bytes") is None


# ---------------------------------------------------------------- loads and unloads


def load(metrics: Metrics, model: str = "m", version: str = "1") -> FakeQueue:
    queue = FakeQueue(1, 10)
    metrics.ensure_statistics(model, version)
    metrics.watch_queue(model, version, queue)
    metrics.count_load(model, version, 2.5)
    metrics.add_memory(model, version, "cpu", 100)
    return queue


def test_loads_and_unloads_are_counted_by_model() -> None:
    metrics = Metrics()
    queue = load(metrics)
    metrics.count_failed_load("m")
    metrics.count_failed_load("m")
    metrics.count_unload("m", "1", queue)
    assert value(metrics, "model_loads_total", model="m", result="ok") == 1
    assert value(metrics, "model_loads_total", model="m", result="failed") == 2
    assert value(metrics, "model_unloads_total", model="m") == 1


def test_the_gauges_of_a_version_go_with_it_and_its_counters_stay() -> None:
    metrics = Metrics()
    queue = load(metrics)
    metrics.ensure_statistics("m", "1").count_answer("OK", 5)
    gauges = ("queue_rows", "queue_bytes", "model_load_seconds")
    assert [of_m1(metrics, name) for name in gauges] == [1, 10, 2.5]
    assert of_m1(metrics, "memory_bytes", device="cpu") == 100
    metrics.count_unload("m", "1", queue)
    assert [of_m1(metrics, name) for name in gauges] == [None, None, None]
    assert of_m1(metrics, "memory_bytes", device="cpu") is None
    assert of_m1(metrics, "requests_total", code="OK") == 1


def test_a_version_that_is_loaded_again_counts_on() -> None:
    metrics = Metrics()
    metrics.count_unload("m", "1", load(metrics))
    before = metrics.ensure_statistics("m", "1")
    load(metrics)
    assert metrics.ensure_statistics("m", "1") is before


def test_the_end_of_a_version_that_was_replaced_by_itself_leaves_the_new_ones_gauges() -> None:
    metrics = Metrics()
    old, new = load(metrics), load(metrics)
    metrics.count_unload("m", "1", old)
    assert of_m1(metrics, "queue_rows") == 1
    assert metrics.memory_by_device("m", "1") == {"cpu": 100}, "the old one's is not added"
    metrics.count_unload("m", "1", new)
    assert metrics.memory_by_device("m", "1") == {}


def test_the_memory_of_several_instances_is_added_by_device() -> None:
    metrics = Metrics()
    load(metrics)
    metrics.add_memory("m", "1", "cpu", 100)
    metrics.add_memory("m", "1", "cuda:0", 7)
    assert metrics.memory_by_device("m", "1") == {"cpu": 200, "cuda:0": 7}


def test_of_too_many_versions_the_oldest_that_is_not_served_is_dropped_and_counted() -> None:
    metrics = Metrics(kept_max=3)
    load(metrics, version="1")
    for version in ("2", "3", "4", "5"):
        metrics.ensure_statistics("m", version).count_answer("OK", 1)
    shown = [value(metrics, "batch_rows_count", model="m", version=version) for version in "12345"]
    assert shown == [0, None, None, 0, 0]
    assert value(metrics, "versions_dropped_total") == 2


def test_versions_that_are_served_are_never_dropped() -> None:
    metrics = Metrics(kept_max=2)
    for version in "1234":
        load(metrics, version=version)
    assert value(metrics, "versions_dropped_total") == 0
    assert all(value(metrics, "queue_rows", model="m", version=each) == 1 for each in "1234")


def test_model_names_over_the_limit_are_counted_together() -> None:
    metrics = Metrics(kept_max=2)
    for name in ("a", "b", "c", "d", "a"):
        metrics.count_failed_load(name)
    counts = [
        value(metrics, "model_loads_total", model=name, result="failed") for name in ("a", "b", "")
    ]
    assert counts == [2, 1, 2]
    assert value(metrics, "model_loads_total", model="c", result="failed") is None


def test_a_scrape_while_everything_changes_never_breaks() -> None:
    metrics, is_over = Metrics(kept_max=50), threading.Event()
    errors: list[Exception] = []

    def scrape() -> None:
        while not is_over.is_set():
            try:
                generate_latest(metrics.registry)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                errors.append(error)
                return

    scraping = threading.Thread(target=scrape)
    scraping.start()
    for number in range(3_000):
        queue = load(metrics, f"m{number % 7}", str(number % 90))
        counted = metrics.ensure_statistics(f"m{number % 7}", str(number % 90))
        counted.count_answer(f"CODE_{number % 50}", 1)
        counted.count_batch(number, [1], input_ns=1, infer_ns=1, output_ns=1, ended_ms=1)
        metrics.count_unload(f"m{number % 7}", str(number % 90), queue)
    is_over.set()
    scraping.join(10)
    assert errors == []

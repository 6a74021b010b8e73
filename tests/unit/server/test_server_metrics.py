from coalmine_server.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"coalmine_server_{name}", labels)


def test_calls_are_counted_by_code() -> None:
    metrics = Metrics()
    version = metrics.of_version("m", "1")
    version.answered("OK")
    version.answered("OK")
    version.answered("INTERNAL")
    metrics.unknown_model()("NOT_FOUND")
    assert value(metrics, "requests_total", model="m", version="1", code="OK") == 2
    assert value(metrics, "requests_total", model="m", version="1", code="INTERNAL") == 1
    assert value(metrics, "requests_total", model="", version="", code="NOT_FOUND") == 1


def test_what_is_watched_is_read_when_somebody_scrapes() -> None:
    metrics = Metrics()
    rows, totals = [3], {"exported": 5}
    metrics.watch_queue("m", "1", lambda: rows[0])
    metrics.watch_in_flight(lambda: 7)
    metrics.watch_spans(lambda: totals)
    rows[0] = 4
    totals["exported"] = 6
    assert value(metrics, "queue_rows", model="m", version="1") == 4
    assert value(metrics, "in_flight") == 7
    assert value(metrics, "spans_total", result="exported") == 6

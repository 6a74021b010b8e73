"""The workers' metrics as one: labelled, complete, and without those that do not answer."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from coalmine_server.fleet.metrics import FleetMetrics, WorkerState, ask_any_serving, metrics_of


def text_of(requests: int) -> str:
    """Return what a worker shows that has had this many requests."""
    registry = CollectorRegistry()
    Counter("requests", "Calls.", ["code"], registry=registry).labels("OK").inc(requests)
    Histogram("seconds", "Times.", buckets=[1.0], registry=registry).observe(0.5)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, Mapping[str, str]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value  # type: ignore[misc]
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def shown(known: dict[int, WorkerState], texts: dict[str, str]) -> str:
    def fetch(address: str) -> str:
        if address not in texts:
            raise TimeoutError("timed out")
        return texts[address]

    registry = CollectorRegistry()
    registry.register(FleetMetrics(lambda: known, fetch))
    return generate_latest(registry).decode()


def test_every_sample_says_of_which_worker_it_is() -> None:
    text = shown(
        {0: WorkerState("a", 0), 1: WorkerState("b", 0)}, {"a": text_of(3), "b": text_of(4)}
    )
    assert 'requests_total{code="OK",worker="0"} 3.0' in text
    assert 'requests_total{code="OK",worker="1"} 4.0' in text
    assert 'seconds_bucket{le="1.0",worker="1"} 1.0' in text
    assert 'seconds_count{worker="0"} 1.0' in text


def test_nothing_is_lost_or_made_up() -> None:
    together = [sample for metric in metrics_of({7: text_of(3)}) for sample in metric.samples]
    alone = samples(text_of(3))
    assert len(together) == len(alone)
    assert {sample.labels["worker"] for sample in together} == {"7"}


def test_each_family_is_described_once() -> None:
    text = shown(
        {n: WorkerState(str(n), 0) for n in range(3)}, {str(n): text_of(1) for n in range(3)}
    )
    assert text.count("# TYPE requests_total counter") == 1
    assert text.count("# HELP seconds Times.") == 1


def test_one_that_does_not_answer_is_left_out_and_counted() -> None:
    with capture_logs() as logs:
        text = shown({0: WorkerState("a", 0), 1: WorkerState("b", 0)}, {"a": text_of(3)})
    assert 'worker="0"' in text
    assert 'worker="1"' not in text
    assert "coalmine_server_workers_not_scraped_total 1.0" in text
    assert [(each["event"], each["peer"]) for each in logs] == [("worker_not_scraped", 1)]


def test_one_that_is_down_is_not_asked() -> None:
    text = shown(
        {0: WorkerState("a", 2, recycled=1, failures=4), 1: WorkerState(None, 3, recycled=1)},
        {"a": text_of(3)},
    )
    assert 'coalmine_server_workers{state="up"} 1.0' in text
    assert 'coalmine_server_workers{state="down"} 1.0' in text
    assert "coalmine_server_worker_restarts_total 5.0" in text
    assert "coalmine_server_workers_recycled_total 2.0" in text
    assert "coalmine_server_worker_replacements_failed_total 4.0" in text
    assert "coalmine_server_workers_not_scraped_total 0.0" in text


def test_with_no_worker_up_there_are_still_the_supervisors_own() -> None:
    assert 'coalmine_server_workers{state="down"} 1.0' in shown({0: WorkerState(None, 0)}, {})


def test_it_is_ready_while_one_worker_that_is_up_says_so() -> None:
    known = {0: WorkerState("a", 0), 1: WorkerState("b", 0), 2: WorkerState(None, 1)}
    assert ask_any_serving(known, lambda address: address == "b")
    assert not ask_any_serving(known, lambda _: False)
    assert not ask_any_serving({2: WorkerState(None, 1)}, lambda _: True)
    assert not ask_any_serving({0: WorkerState("127.0.0.1:1", 0)}), "nobody listens there"

"""What the server counts. The names are a contract: dashboards and alerts read them."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_VERSION: Final = ("model", "version")


class Metrics:
    """The instruments of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "coalmine_server_requests",
            "ModelInfer calls by status code; model and version are empty where they are unknown.",
            (*_VERSION, "code"),
            registry=self.registry,
        )
        self._queue = self._seconds("queue", "Time a request waited for its batch.")
        self._compute = self._seconds("compute", "Time a batch ran.")
        self._batch = Histogram(
            "coalmine_server_batch_rows",
            "Rows in a batch.",
            _VERSION,
            buckets=_ROWS,
            registry=self.registry,
        )
        self._queue_rows = Gauge(
            "coalmine_server_queue_rows",
            "Rows that wait.",
            _VERSION,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "coalmine_server_in_flight",
            "ModelInfer calls that are not answered yet.",
            registry=self.registry,
        )

    def of_version(self, model: str, version: str) -> "VersionMetrics":
        """Return the instruments of one version; empty names stand for an unknown one."""
        return VersionMetrics(
            requests=lambda code: self._requests.labels(model, version, code),
            queue=self._queue.labels(model, version),
            compute=self._compute.labels(model, version),
            batch=self._batch.labels(model, version),
        )

    def unknown_model(self) -> Callable[[str], None]:
        """Return the count of calls for no known version, by code."""
        return lambda code: self._requests.labels("", "", code).inc()

    def watch_queue(self, model: str, version: str, rows: Callable[[], int]) -> None:
        """Read a version's waiting rows whenever somebody scrapes."""
        self._queue_rows.labels(model, version).set_function(rows)

    def watch_in_flight(self, calls: Callable[[], int]) -> None:
        """Read the number of calls in flight whenever somebody scrapes."""
        self._in_flight.set_function(calls)

    def watch_spans(self, totals: Callable[[], dict[str, int]]) -> None:
        """Read what became of the finished spans whenever somebody scrapes."""
        self.registry.register(_SpanTotals(totals))

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(
            f"coalmine_server_{name}_seconds",
            what,
            _VERSION,
            buckets=_SECONDS,
            registry=self.registry,
        )


class VersionMetrics:
    """One version's instruments, with their labels looked up once: this is the hot path."""

    def __init__(
        self,
        *,
        requests: Callable[[str], Counter],
        queue: Histogram,
        compute: Histogram,
        batch: Histogram,
    ) -> None:
        self._requests = requests
        self._by_code: dict[str, Counter] = {}  # at most as many as there are status codes
        self._queue = queue
        self._compute = compute
        self._batch = batch

    def answered(self, code: str) -> None:
        """Count one call by the name of its status code."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests(code)
        counter.inc()

    def waited(self, seconds: float) -> None:
        """Record how long a request waited before it ran."""
        self._queue.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Record one batch."""
        self._batch.observe(rows)
        self._compute.observe(seconds)


class _SpanTotals(Collector):
    def __init__(self, totals: Callable[[], dict[str, int]]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "coalmine_server_spans", "Finished spans, by what became of them.", labels=["result"]
        )
        for result, count in self._totals().items():
            family.add_metric([result], count)
        yield family

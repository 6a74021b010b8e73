"""The counters of a process, and the registry that shows them at /metrics."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coalmine_server.figures import families
from coalmine_server.figures.statistics import VersionStatistics

Read = Callable[[], int]
Key = tuple[str, str]

KEPT_MAX: Final = 1_000

_UNKNOWN: Final[Key] = ("", "")


class QueueSize(Protocol):
    """How full the queue of a served version is."""

    @property
    def queue_rows(self) -> int:
        """How many rows wait."""
        ...

    @property
    def queue_bytes(self) -> int:
        """How much memory their inputs take."""
        ...


@dataclass(slots=True)
class LiveVersion:
    """The gauges of a version while it is served; memory in bytes by device."""

    queue: QueueSize
    load_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class LoadCounts:
    """How often a model's versions were loaded and unloaded."""

    ok: int = 0
    failed: int = 0
    unloads: int = 0


class Metrics:
    """The counts of one process, and the registry that shows them.

    The loop writes. Scrapes run in the thread of the HTTP side, and copy every table before they
    walk it. Versions and models that come and go are kept, so that no counter goes back: up to
    `kept_max` of each. Over that, the oldest version that isn't served is dropped, and counted.
    """

    def __init__(self, *, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._versions: dict[Key, VersionStatistics] = {_UNKNOWN: VersionStatistics()}
        self._live: dict[Key, LiveVersion] = {}
        self._loads: dict[str, LoadCounts] = {}
        self._dropped = 0
        self.registry = CollectorRegistry()
        self.registry.register(_ReadAtScrape(self._all_metrics))

    # ------------------------------------------------------------ requests

    def ensure_statistics(self, model: str, version: str) -> VersionStatistics:
        """Return the counters of one version, made where there are none: a reload keeps them."""
        key = (model, version)
        if key not in self._versions:
            self._drop_oldest_if_full()
            self._versions[key] = VersionStatistics()
        return self._versions[key]

    def unknown_counter(self) -> Callable[[str, int], None]:
        """Return what counts a call for an unknown version, by code and nanoseconds."""
        return self._versions[_UNKNOWN].count_answer

    def _drop_oldest_if_full(self) -> None:
        if len(self._versions) <= self._kept_max:
            return
        gone = (key for key in self._versions if key not in self._live and key != _UNKNOWN)
        oldest = next(gone, None)
        if oldest is not None:
            del self._versions[oldest]
            self._dropped += 1

    # ------------------------------------------------------------ versions that come and go

    def watch_queue(self, model: str, version: str, queue: QueueSize) -> None:
        """Read a version's queue from now on, until it is unloaded."""
        self._live[model, version] = LiveVersion(queue)

    def add_memory(self, model: str, version: str, device: str, size: int) -> None:
        """Add to the bytes that a served version takes on a device: "cpu", "cuda:0"."""
        memory = self._live[model, version].memory
        memory[device] = memory.get(device, 0) + size

    def memory_by_device(self, model: str, version: str) -> dict[str, int]:
        """Return the memory of a version by device; nothing where it isn't served."""
        live = self._live.get((model, version))
        return {} if live is None else live.memory.copy()

    def count_load(self, model: str, version: str, seconds: float) -> None:
        """Count a load that succeeded, of a version whose queue is watched."""
        self._ensure_load_counts(model).ok += 1
        self._live[model, version].load_seconds = seconds

    def count_failed_load(self, model: str) -> None:
        """Count a load that failed."""
        self._ensure_load_counts(model).failed += 1

    def count_unload(self, model: str, version: str, queue: QueueSize) -> None:
        """Count an unload, and drop the version's gauges; its counters stay.

        The gauges stay too where the same version has been loaded again, with another queue.
        """
        self._ensure_load_counts(model).unloads += 1
        live = self._live.get((model, version))
        if live is not None and live.queue is queue:
            del self._live[model, version]

    def _ensure_load_counts(self, model: str) -> LoadCounts:
        if model not in self._loads and len(self._loads) >= self._kept_max:
            model = ""  # all further ones together: a caller may ask for any name
        return self._loads.setdefault(model, LoadCounts())

    # ------------------------------------------------------------ the process

    def watch_in_flight(self, calls: Read, size: Read | None = None) -> None:
        """Read the calls in flight, and the bytes of their requests, at each scrape."""
        self.registry.register(_ReadAtScrape(lambda: families.in_flight(calls(), size and size())))

    def watch_stuck_threads(self, stuck_threads: Callable[[], Mapping[str, int]]) -> None:
        """Read at each scrape how many threads of each model go on after their end."""
        self.registry.register(_ReadAtScrape(lambda: families.stuck_metrics(stuck_threads())))

    def watch_spans(self, totals: Callable[[], Mapping[str, int]]) -> None:
        """Read the fates of finished spans at each scrape."""
        self.registry.register(_ReadAtScrape(lambda: families.span_metrics(totals())))

    def _all_metrics(self) -> Iterator[Metric]:
        live = list(self._live.items())
        loads = list(self._loads.items())
        yield from families.request_metrics(list(self._versions.items()))
        yield from families.queue_metrics(
            [(key, each.queue.queue_rows, each.queue.queue_bytes) for key, each in live]
        )
        yield families.load_seconds_metric([(key, each.load_seconds) for key, each in live])
        yield families.memory_metric([(key, each.memory.copy()) for key, each in live])
        yield from families.load_metrics(
            [(name, each.ok, each.failed, each.unloads) for name, each in loads]
        )
        yield families.versions_dropped_metric(self._dropped)


class _ReadAtScrape(Collector):
    """Families that are made at each scrape."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._families = collect

    def collect(self) -> Iterator[Metric]:
        return self._families()

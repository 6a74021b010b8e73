"""What the process counts, and what /metrics shows of it."""

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


class Queue(Protocol):
    """What is read of the queue of a version that is served."""

    @property
    def queue_rows(self) -> int:
        """How many rows wait."""
        ...

    @property
    def queue_bytes(self) -> int:
        """How much memory their inputs take."""
        ...


@dataclass(slots=True)
class Live:
    """What there is to read of a version while it is served; memory in bytes by device."""

    queue: Queue
    load_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Loads:
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
        self._live: dict[Key, Live] = {}
        self._loads: dict[str, Loads] = {}
        self._dropped = 0
        self.registry = CollectorRegistry()
        self.registry.register(_Read(self._collect))

    # ------------------------------------------------------------ requests

    def of_version(self, model: str, version: str) -> VersionStatistics:
        """Return the counters of one version: the same ones whenever it is loaded again."""
        key = (model, version)
        if key not in self._versions:
            self._drop_oldest()
            self._versions[key] = VersionStatistics()
        return self._versions[key]

    def unknown_model(self) -> Callable[[str, int], None]:
        """Return the count of calls for no known version, by code and nanoseconds."""
        return self._versions[_UNKNOWN].answered

    def _drop_oldest(self) -> None:
        if len(self._versions) <= self._kept_max:
            return
        gone = (key for key in self._versions if key not in self._live and key != _UNKNOWN)
        oldest = next(gone, None)
        if oldest is not None:
            del self._versions[oldest]
            self._dropped += 1

    # ------------------------------------------------------------ versions that come and go

    def watch_queue(self, model: str, version: str, queue: Queue) -> None:
        """Read a version's queue from now on, until it is unloaded."""
        self._live[model, version] = Live(queue)

    def takes_memory(self, model: str, version: str, device: str, size: int) -> None:
        """Add to the bytes that a served version takes on a device: "cpu", "cuda:0"."""
        memory = self._live[model, version].memory
        memory[device] = memory.get(device, 0) + size

    def memory(self, model: str, version: str) -> dict[str, int]:
        """Return the memory of a version by device; nothing where it isn't served."""
        live = self._live.get((model, version))
        return {} if live is None else live.memory.copy()

    def loaded(self, model: str, version: str, seconds: float) -> None:
        """Count a load that succeeded, of a version whose queue is watched."""
        self._loads_of(model).ok += 1
        self._live[model, version].load_seconds = seconds

    def load_failed(self, model: str) -> None:
        """Count a load that failed."""
        self._loads_of(model).failed += 1

    def unloaded(self, model: str, version: str, queue: Queue) -> None:
        """Count an unload, and read the version's gauges no more; its counters stay.

        The gauges stay too where another queue, of the same version loaded again, is read by now.
        """
        self._loads_of(model).unloads += 1
        live = self._live.get((model, version))
        if live is not None and live.queue is queue:
            del self._live[model, version]

    def _loads_of(self, model: str) -> Loads:
        if model not in self._loads and len(self._loads) >= self._kept_max:
            model = ""  # all further ones together: a caller may ask for any name
        return self._loads.setdefault(model, Loads())

    # ------------------------------------------------------------ the process

    def watch_in_flight(self, calls: Read, size: Read | None = None) -> None:
        """Read the calls in flight, and the bytes of their requests, whenever somebody scrapes."""
        self.registry.register(_Read(lambda: families.in_flight(calls(), size and size())))

    def watch_stuck(self, stuck: Callable[[], Mapping[str, int]]) -> None:
        """Read how many threads of each model never came back whenever somebody scrapes."""
        self.registry.register(_Read(lambda: families.stuck(stuck())))

    def watch_spans(self, totals: Callable[[], Mapping[str, int]]) -> None:
        """Read what became of the finished spans whenever somebody scrapes."""
        self.registry.register(_Read(lambda: families.spans(totals())))

    def _collect(self) -> Iterator[Metric]:
        yield from families.requests(list(self._versions.items()))
        yield from families.queues(
            [(key, live.queue.queue_rows, live.queue.queue_bytes) for key, live in self._served()]
        )
        yield families.load_seconds([(key, live.load_seconds) for key, live in self._served()])
        yield families.memory([(key, self.memory(*key)) for key, _ in self._served()])
        yield from families.loads(
            [(name, each.ok, each.failed, each.unloads) for name, each in list(self._loads.items())]
        )
        yield families.versions_dropped(self._dropped)

    def _served(self) -> list[tuple[Key, Live]]:
        return list(self._live.items())


class _Read(Collector):
    """Something to collect at a scrape."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._families = collect

    def collect(self) -> Iterator[Metric]:
        return self._families()

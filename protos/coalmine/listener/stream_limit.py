"""A bound on the open streams of one kind in a process."""

import contextlib
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coalmine.errors import Overloaded
from coalmine.process.metric_families import MetricFamilies

_log = structlog.get_logger(__name__)


class StreamLimit:
    """At most `most` streams of a kind. `open` counts them, `turned_away` those refused."""

    def __init__(self, kind: str, most: int) -> None:
        self.kind = kind
        self._most = most
        self._is_full = False
        self.open = 0
        self.turned_away = 0

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a stream as open in the block. Raises Overloaded."""
        if self.open >= self._most:
            self._count_refusal()
            raise Overloaded(f"{self.kind}: {self._most} are open, the most allowed")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            # Said once more only after it was far from full: streams come and go.
            self._is_full = self._is_full and 2 * self.open > self._most

    def _count_refusal(self) -> None:
        self.turned_away += 1
        if not self._is_full:
            self._is_full = True
            _log.warning(f"{self.kind.replace(' ', '_')}_turned_away", max=self._most)


class StreamRefused(Collector):
    """Shows as metrics of a `program` how many streams were turned away."""

    def __init__(self, program: str, *limits: StreamLimit) -> None:
        self._families = MetricFamilies(program)
        self._limits = limits

    def collect(self) -> Iterable[Metric]:
        """Return the counts as they are now."""
        return [self._counter_of(each) for each in self._limits]

    def _counter_of(self, limit: StreamLimit) -> Metric:
        name = f"{limit.kind.replace(' ', '_')}_turned_away"
        what = f"{limit.kind.capitalize()} refused because too many were open."
        return self._families.single_counter(name, what, limit.turned_away)

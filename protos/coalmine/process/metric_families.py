"""The families of /metrics: how counters, gauges and histograms are named and made.

Names and labels are a contract: dashboards and alerts read them.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString


class MetricFamilies:
    """Makes the families of one program, whose name each of theirs begins with."""

    def __init__(self, program: str) -> None:
        self._program = program

    def counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        """Return a counter without samples; `_total` is added to its name."""
        return CounterMetricFamily(f"{self._program}_{name}", text, labels=labels)

    def gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        """Return a gauge without samples."""
        return GaugeMetricFamily(f"{self._program}_{name}", text, labels=labels)

    def histogram(self, name: str, text: str, *labels: str) -> HistogramMetricFamily:
        """Return a histogram without samples."""
        return HistogramMetricFamily(f"{self._program}_{name}", text, labels=labels)

    def single_counter(self, name: str, text: str, count: float) -> Metric:
        """Return a counter with one sample."""
        return CounterMetricFamily(f"{self._program}_{name}", text, value=count)

    def single_gauge(self, name: str, text: str, value: float) -> Metric:
        """Return a gauge with one sample."""
        return GaugeMetricFamily(f"{self._program}_{name}", text, value=value)

    def counter_by(self, label: str, name: str, text: str, totals: Mapping[str, int]) -> Metric:
        """Return a counter with a sample for each value of one label."""
        family = self.counter(name, text, label)
        for value, count in list(totals.items()):
            family.add_metric([value], count)
        return family


def buckets(bounds: Iterable[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return a histogram's buckets: how many values are at most each bound, and all of them.

    `counts` has one more than there are bounds: the values above the last one.
    """
    names = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(names, accumulate(list(counts)), strict=True))


def merged_families(pages: Iterable[tuple[Mapping[str, str], Iterable[Metric]]]) -> list[Metric]:
    """Return the pages of several processes as one, each page's samples with its own labels."""
    merged: dict[str, Metric] = {}
    for labels, page in pages:
        for metric in page:
            empty = Metric(metric.name, metric.documentation, metric.type)
            merged.setdefault(metric.name, empty).samples += [
                sample._replace(labels={**labels, **sample.labels}) for sample in metric.samples
            ]
    return list(merged.values())

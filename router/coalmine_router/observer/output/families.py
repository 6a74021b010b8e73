"""Builds the observer's metric families."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "coalmine_router"


class Unchecked(Collector):
    """A collector that registers without being collected: its names aren't checked for clashes."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing."""
        return ()


def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    """Return a counter without samples; `_total` is added to its name."""
    return CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a gauge without samples."""
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)


def single_counter(name: str, text: str, count: float) -> Metric:
    """Return a counter with one sample."""
    family = counter(name, text)
    family.add_metric([], count)
    return family


def single_gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge with one sample."""
    family = gauge(name, text)
    family.add_metric([], value)
    return family


def by_label(label: str, name: str, text: str, totals: Mapping[str, int]) -> Metric:
    """Return a counter with a sample for each value of one label."""
    family = counter(name, text, label)
    for value, count in list(totals.items()):
        family.add_metric([value], count)
    return family

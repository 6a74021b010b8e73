"""What a collector's metrics read like at `/metrics`."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Series = tuple[str, frozenset[tuple[str, str]]]
Exposed = dict[Series, float]


def exposed(collector: Collector) -> Exposed:
    """Return each value by its series, of which the router's prefix is left out."""
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        series(sample.name.removeprefix("coalmine_router_"), **sample.labels): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def series(name: str, **labels: str) -> Series:
    """Return the key of one value."""
    return name, frozenset(labels.items())

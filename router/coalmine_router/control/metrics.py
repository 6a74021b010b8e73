"""The control's state as Prometheus sees it, read when it is scraped."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coalmine_router.control.current import CurrentTable
from coalmine_router.control.feed import TableFeed
from coalmine_router.table import WHOLE_BP, RouteTable


class TurnsAway(Protocol):
    """A part that refuses what is too much, and counts it."""

    @property
    def turned_away(self) -> int:
        """How many were refused."""
        ...


class ControlMetrics(Collector):
    """Collects from the parts themselves. Scraped from another thread: it only reads."""

    def __init__(
        self,
        current: CurrentTable,
        feed: TableFeed,
        is_usable: Callable[[], bool],
        turned_away: Mapping[str, TurnsAway],
    ) -> None:
        self._current = current
        self._feed = feed
        self._is_usable = is_usable
        self._turned_away = turned_away

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        table = self._current.table
        yield GaugeMetricFamily(
            "coalmine_router_table_revision",
            "Revision of the route table in force.",
            value=table.revision,
        )
        yield GaugeMetricFamily(
            "coalmine_router_state_usable",
            "Whether the state on disk takes changes; else the last saved table is served.",
            value=self._is_usable(),
        )
        yield _weights(table)
        yield _shadows(table)
        yield GaugeMetricFamily(
            "coalmine_router_proxies",
            "Proxies that follow the route table.",
            value=len(self._feed.proxies()),
        )
        yield GaugeMetricFamily(
            "coalmine_router_proxies_current",
            "Proxies that serve by the revision in force.",
            value=self._feed.current_proxies(table.revision),
        )
        yield _available(self._feed)
        yield self._overflows()

    def _overflows(self) -> Metric:
        family = CounterMetricFamily(
            "coalmine_router_control_turned_away",
            "Calls refused because too many of their kind were open or waiting.",
            labels=["kind"],
        )
        for kind, part in self._turned_away.items():
            family.add_metric([kind], part.turned_away)
        return family


def _available(feed: TableFeed) -> Metric:
    family = GaugeMetricFamily(
        "coalmine_router_variant_available",
        "Addresses of a variant that may be called now, of the proxy that has the fewest.",
        labels=["route", "variant"],
    )
    for key, addresses in feed.available().items():
        family.add_metric(key, addresses)
    return family


def _weights(table: RouteTable) -> Metric:
    family = GaugeMetricFamily(
        "coalmine_router_weight_ratio",
        "Share of a route's split that a variant answers, 0 to 1.",
        labels=["route", "variant"],
    )
    for route in table.routes:
        for variant, weight_bp in route.weights_bp.items():
            family.add_metric([route.name, variant], weight_bp / WHOLE_BP)
    return family


def _shadows(table: RouteTable) -> Metric:
    family = GaugeMetricFamily(
        "coalmine_router_shadow_ratio",
        "Share of a route's requests that are copied to a variant, 0 to 1.",
        labels=["route", "variant"],
    )
    for route in table.routes:
        for variant in route.by_name:
            share_bp = route.shadows_bp.get(variant, 0)
            family.add_metric([route.name, variant], share_bp / WHOLE_BP)
    return family

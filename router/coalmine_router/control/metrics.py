"""The control's state as Prometheus sees it, read when it is scraped."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coalmine.process.metric_families import MetricFamilies
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.feed import TableFeed
from coalmine_router.table import WHOLE_BP, RouteTable

_FAMILIES: Final = MetricFamilies("coalmine_router")


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
        yield _FAMILIES.single_gauge(
            "table_revision",
            "Revision of the route table in force.",
            table.revision,
        )
        yield _FAMILIES.single_gauge(
            "state_usable",
            "Whether the state on disk takes changes; else the last saved table is served.",
            self._is_usable(),
        )
        yield _weights(table)
        yield _shadows(table)
        yield _FAMILIES.single_gauge(
            "proxies",
            "Proxies that follow the route table.",
            len(self._feed.proxies()),
        )
        yield _FAMILIES.single_gauge(
            "proxies_current",
            "Proxies that serve by the revision in force.",
            self._feed.current_proxies(table.revision),
        )
        yield _available(self._feed)
        yield self._overflows()

    def _overflows(self) -> Metric:
        family = _FAMILIES.counter(
            "control_turned_away",
            "Calls refused because too many of their kind were open or waiting.",
            "kind",
        )
        for kind, part in self._turned_away.items():
            family.add_metric([kind], part.turned_away)
        return family


def _available(feed: TableFeed) -> Metric:
    family = _FAMILIES.gauge(
        "variant_available",
        "Addresses of a variant that may be called now, of the proxy that has the fewest.",
        "route",
        "variant",
    )
    for key, addresses in feed.least_available().items():
        family.add_metric(key, addresses)
    return family


def _weights(table: RouteTable) -> Metric:
    family = _FAMILIES.gauge(
        "weight_ratio",
        "Share of a route's split that a variant answers, 0 to 1.",
        "route",
        "variant",
    )
    for route in table.routes:
        for variant, weight_bp in route.weights_bp.items():
            family.add_metric([route.name, variant], weight_bp / WHOLE_BP)
    return family


def _shadows(table: RouteTable) -> Metric:
    family = _FAMILIES.gauge(
        "shadow_ratio",
        "Share of a route's requests that are copied to a variant, 0 to 1.",
        "route",
        "variant",
    )
    for route in table.routes:
        for variant in route.by_name:
            share_bp = route.shadows_bp.get(variant, 0)
            family.add_metric([route.name, variant], share_bp / WHOLE_BP)
    return family

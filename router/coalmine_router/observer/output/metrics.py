"""Prometheus metrics of requests, reports and copies, collected when they are scraped.

The HTTP thread runs this. Other threads only ever add to the counts, which are copied before they
are read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coalmine.process.metric_families import MetricFamilies, buckets
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey, ReportTotals
from coalmine_router.observer.traffic_counts import BOUNDS_NS, Latencies, TrafficCounts

Totals = Callable[[], Mapping[str, int]]
QueueTotals = Callable[[], Iterable[tuple[CopyQueueKey, CopyCounts]]]

_FAMILIES: Final = MetricFamilies("coalmine_router")
_ROUTE: Final = ("route", "variant")
_REASON: Final = (*_ROUTE, "reason")
_LANE: Final = ("route", "role", "variant")
_COPIES: Final = (
    ("offered", "Copies drawn for a variant"),
    ("sent", "Copies that a variant was asked: answered, failed or timed out"),
    ("answered", "Copies that were answered"),
    ("failed", "Copies that were answered with an error"),
    ("timed_out", "Copies that were not answered in time"),
    ("compared", "Copies that came to a comparison"),
    ("uncompared", "Copies that were sent, and came to none"),
)
# The exported buckets: 1, 2.5 and 5 of each decade from 100 microseconds on.
_SHOWN: Final = tuple(
    position
    for position, bound in enumerate(BOUNDS_NS)
    if bound >= 100_000 and str(bound).rstrip("0") in {"1", "25", "5"}
)


class RouterMetrics(Collector):
    """Metrics of answers, reports and copies; EvidenceMetrics has those of evidence."""

    def __init__(
        self,
        *,
        traffic: TrafficCounts,
        reports: ReportTotals,
        streams_turned_away: Callable[[], int],
        lanes: QueueTotals,
        spans: Totals,
        refusals_left_out: Callable[[], int],
        mismatches: Totals,
    ) -> None:
        self._traffic = traffic
        self._reports = reports
        self._streams_turned_away = streams_turned_away
        self._lanes = lanes
        self._spans = spans
        self._refusals_left_out = refusals_left_out
        self._mismatches = mismatches

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._requests()
        yield from self._fallbacks_and_refusals()
        yield from self._report_counts()
        yield from self._copies()
        yield from self._copies_now()
        yield _FAMILIES.counter_by("result", "spans", "Spans of kept traces", self._spans())
        yield _FAMILIES.single_counter(
            "refusals_untraced",
            "Requests without a route beyond the one a second that leaves a trace",
            self._refusals_left_out(),
        )
        yield _FAMILIES.counter_by(
            "result", "mismatches", "Mismatches offered as examples", self._mismatches()
        )

    def _requests(self) -> Iterator[Metric]:
        requests = _FAMILIES.counter(
            "requests",
            "Requests answered, and calls that failed and were tried again",
            *_ROUTE,
            "code",
        )
        durations = _FAMILIES.histogram(
            "request_duration_seconds", "From the request's arrival to its answer", *_ROUTE
        )
        for key, found in self._traffic.variants():
            for code, count in list(found.by_code.items()):
                requests.add_metric([*key, code], count)
            durations.add_metric(key, _buckets(found.latencies), found.latencies.sum_ns / 10**9)
        yield requests
        yield durations

    def _fallbacks_and_refusals(self) -> Iterator[Metric]:
        fallbacks = _FAMILIES.counter(
            "fallbacks", "Requests that another variant answered", *_REASON
        )
        for key, found in self._traffic.variants():
            for reason, count in list(found.fallbacks.items()):
                fallbacks.add_metric([*key, reason], count)
        turned_away = _FAMILIES.counter(
            "turned_away", "Requests the router refused", "route", "reason"
        )
        for route, counts in self._traffic.refusals():
            for reason, count in counts.items():
                turned_away.add_metric([route, reason], count)
        yield fallbacks
        yield turned_away

    def _report_counts(self) -> Iterator[Metric]:
        of = self._reports
        yield _FAMILIES.single_counter("reports_offered", "Reports that proxies made", of.offered)
        yield _FAMILIES.single_counter("reports_received", "Reports that arrived", of.received)
        yield _FAMILIES.single_counter(
            "reports_unreadable", "Reports that arrived and made no sense", of.unreadable
        )
        yield _FAMILIES.single_counter(
            "report_streams_turned_away",
            "Streams of reports over the bound",
            self._streams_turned_away(),
        )
        yield _FAMILIES.counter_by("reason", "reports_dropped", "Reports given up", of.dropped)

    def _copies(self) -> Iterator[Metric]:
        """Yield the fates of copies: offered = sent + dropped + those of _copies_now."""
        dropped = _FAMILIES.counter("shadows_dropped", "Copies given up", *_LANE, "reason")
        families = {
            name: _FAMILIES.counter(f"shadows_{name}", text, *_LANE) for name, text in _COPIES
        }
        for key, totals in self._lanes():
            for name, family in families.items():
                family.add_metric(key, getattr(totals, name))
            for reason, count in list(totals.dropped.items()):
                dropped.add_metric([*key, reason], count)
        yield from families.values()
        yield dropped

    def _copies_now(self) -> Iterator[Metric]:
        waiting = _FAMILIES.gauge("shadows_waiting", "Copies that wait for a call", *_LANE)
        under_way = _FAMILIES.gauge("shadows_under_way", "Copies that a call is made for", *_LANE)
        is_out = _FAMILIES.gauge(
            "shadows_circuit_open", "1: calls failed too often to make more", *_LANE
        )
        for key, totals in self._lanes():
            waiting.add_metric(key, totals.waiting)
            under_way.add_metric(key, totals.under_way)
            is_out.add_metric(key, totals.circuit != "closed")
        yield waiting
        yield under_way
        yield is_out


def _buckets(latencies: Latencies) -> list[tuple[str, float]]:
    """Return how many took so long at most, by seconds as text."""
    found = buckets([bound / 10**9 for bound in BOUNDS_NS], latencies.counts)
    return [*(found[position] for position in _SHOWN), found[-1]]

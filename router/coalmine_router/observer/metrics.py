"""Prometheus metrics, read from the observer's own counts when somebody asks for them.

Runs in the thread of the HTTP side; the counts are only ever added to, and copied before reading.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from coalmine_router.observer.evidence import Evidence
from coalmine_router.observer.totals import ReportTotals, ShadowTotals
from coalmine_router.observer.traffic import BOUNDS_NS, Latencies, Traffic

Totals = Callable[[], Mapping[str, int]]
Shadows = Callable[[], Iterable[tuple[tuple[str, str], ShadowTotals]]]

_PREFIX: Final = "coalmine_router"
_ROUTE: Final = ("route", "variant")
_REASON: Final = (*_ROUTE, "reason")
_PAIR: Final = ("route", "reference", "candidate")
# The buckets that go out: 1, 2.5 and 5 of each decade from 100 microseconds on.
_SHOWN: Final = tuple(
    position
    for position, bound in enumerate(BOUNDS_NS)
    if bound >= 100_000 and str(bound).rstrip("0") in {"1", "25", "5"}
)


class RouterMetrics(Collector):
    """The counters of one observer."""

    def __init__(
        self,
        *,
        traffic: Traffic,
        evidence: Evidence,
        reports: ReportTotals,
        streams_turned_away: Callable[[], int],
        shadows: Shadows,
        spans: Totals,
        mismatches: Totals,
    ) -> None:
        self._traffic = traffic
        self._evidence = evidence
        self._reports = reports
        self._streams_turned_away = streams_turned_away
        self._shadows = shadows
        self._spans = spans
        self._mismatches = mismatches

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names need no check against others, and counts don't exist yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they stand."""
        yield from self._requests()
        yield from self._refused()
        yield from self._comparisons()
        yield from self._report_counts()
        yield from self._shadow_counts()
        yield _by_result("spans", "Spans of kept traces", self._spans())
        yield _by_result("mismatches", "Mismatches offered as examples", self._mismatches())

    def _requests(self) -> Iterator[Metric]:
        requests = _counter(
            "requests",
            "Requests answered, and calls that failed and were tried again",
            *_ROUTE,
            "code",
        )
        durations = HistogramMetricFamily(
            f"{_PREFIX}_request_duration_seconds",
            "From the request's arrival to its answer",
            labels=_ROUTE,
        )
        for key, found in self._traffic.variants():
            for code, count in list(found.by_code.items()):
                requests.add_metric([*key, code], count)
            durations.add_metric(key, _buckets(found.latencies), found.latencies.sum_ns / 10**9)
        yield requests
        yield durations

    def _refused(self) -> Iterator[Metric]:
        fallbacks = _counter("fallbacks", "Requests that another variant answered", *_REASON)
        for key, found in self._traffic.variants():
            for reason, count in list(found.fallbacks.items()):
                fallbacks.add_metric([*key, reason], count)
        turned_away = _counter("turned_away", "Requests the router refused", "route", "reason")
        for route, counts in self._traffic.refusals():
            for reason, count in counts.items():
                turned_away.add_metric([route, reason], count)
        yield fallbacks
        yield turned_away

    def _comparisons(self) -> Iterator[Metric]:
        pairs = _counter("comparisons", "Answers compared", *_PAIR, "outcome")
        outputs = _counter("output_comparisons", "Outputs compared", *_PAIR, "output", "outcome")
        for pair, found in self._evidence.pairs():
            for outcome, count in list(found.outcomes.items()):
                pairs.add_metric([*pair, outcome], count)
            for name, output in list(found.outputs.items()):
                outputs.add_metric([*pair, name, "match"], output.match)
                outputs.add_metric([*pair, name, "mismatch"], output.mismatch)
        yield pairs
        yield outputs

    def _report_counts(self) -> Iterator[Metric]:
        offered = _counter("reports_offered", "Reports that proxies made")
        offered.add_metric([], self._reports.offered)
        received = _counter("reports_received", "Reports that arrived")
        received.add_metric([], self._reports.received)
        unreadable = _counter("reports_unreadable", "Reports that arrived and made no sense")
        unreadable.add_metric([], self._reports.unreadable)
        turned_away = _counter("report_streams_turned_away", "Streams of reports over the bound")
        turned_away.add_metric([], self._streams_turned_away())
        yield offered
        yield received
        yield unreadable
        yield turned_away
        yield _dropped("reports_dropped", "Reports given up", self._reports.dropped)

    def _shadow_counts(self) -> Iterator[Metric]:
        offered = _counter("shadows_offered", "Copies drawn for a shadow", *_ROUTE)
        sent = _counter("shadows_sent", "Copies that a shadow was asked", *_ROUTE)
        dropped = _counter("shadows_dropped", "Copies given up", *_REASON)
        for key, totals in self._shadows():
            offered.add_metric(key, totals.offered)
            sent.add_metric(key, totals.sent)
            for reason, count in list(totals.dropped.items()):
                dropped.add_metric([*key, reason], count)
        yield offered
        yield sent
        yield dropped


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)


def _by_result(name: str, text: str, totals: Mapping[str, int]) -> Metric:
    family = _counter(name, text, "result")
    for result, count in totals.items():
        family.add_metric([result], count)
    return family


def _dropped(name: str, text: str, totals: Mapping[str, int]) -> Metric:
    family = _counter(name, text, "reason")
    for reason, count in list(totals.items()):
        family.add_metric([reason], count)
    return family


def _buckets(latencies: Latencies) -> list[tuple[str, float]]:
    """Return how many took so long at most, by seconds as text."""
    counts = list(latencies.counts)
    shown = [
        (_seconds(BOUNDS_NS[position]), float(sum(counts[: position + 1]))) for position in _SHOWN
    ]
    return [*shown, ("+Inf", float(sum(counts)))]


def _seconds(bound_ns: int) -> str:
    text: str = floatToGoString(bound_ns / 10**9)  # type: ignore[no-untyped-call]  # the library's own
    return text

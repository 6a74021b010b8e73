"""What operators ask the observer: how a route does, its trials, the kept mismatches."""

from collections.abc import Callable, Hashable, Mapping

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.comparer import ComparingCounts
from coalmine_router.observer.copies.copy_sender import CopySender
from coalmine_router.observer.evidence.address_evidence import AsksReady
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.examples.example_store import ExampleStore
from coalmine_router.observer.output.route_status import (
    comparing_message,
    copy_counts,
    fill_traffic,
    fill_trials,
    report_counts,
)
from coalmine_router.observer.output.span_writer import SpanSink
from coalmine_router.observer.output.trial_status import trial_counts
from coalmine_router.observer.recent import RecentGrowth
from coalmine_router.observer.route_settings import UNSET, RouteSettings
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.table import Route


class ObserverQueries:
    """Reads what the observer's parts hold; changes nothing."""

    def __init__(
        self,
        *,
        since_ns: int,
        routes: Mapping[str, RouteSettings],
        traffic: TrafficCounts,
        reports: ReportTotals,
        copies: CopySender,
        comparing: Callable[[], ComparingCounts],
        trials: Trials,
        ready: AsksReady,
        store: EvidenceStore,
        examples: ExampleStore,
        spans: SpanSink,
        now_ns: int,
    ) -> None:
        self._since_ns = since_ns
        self._routes = routes
        self._traffic = traffic
        self._reports = reports
        self._copies = copies
        self._comparing = comparing
        self._trials = trials
        self._ready = ready
        self._store = store
        self._examples = examples
        self._spans = spans
        self._recent = RecentGrowth(self._counts, now_ns)

    def describe(self, route: Route, status: pb.RouteStatus) -> None:
        """Fill in what was counted of a route since this process began, trials, and troubles."""
        status.counting_since_ns = self._since_ns
        status.reports.CopyFrom(report_counts(self._reports))
        for variant in status.variants:
            fill_traffic(variant, self._traffic.variant(route.name, variant.name))
        self._add_recent(route.name, status)
        status.turned_away.update(self._traffic.refusals_of(route.name))
        current = [each for each in self._trials.current_trials(route.name) if _is_of(route, each)]
        fill_trials(status, current, self._gates(route.name), self._ready)
        status.comparing.CopyFrom(comparing_message(self._comparing()))
        status.shadows.extend(
            copy_counts(key, totals)
            for key, totals in self._copies.totals()
            if key.route == route.name
        )
        troubles = self._store.trouble(), self._examples.trouble(), self._spans_trouble()
        status.troubles.extend(filter(None, troubles))

    async def trials(self, route: str, candidate: str, limit: int) -> list[pb.ComparisonCounts]:
        """Return a route's trials, newest first; with `candidate`, only its. Raises Unavailable."""
        found = await self._store.find_trials(route, candidate, limit)
        return [trial_counts(each, self._gates(route), self._ready) for each in found]

    async def mismatches(self, wanted: pb.ListMismatchesRequest) -> list[pb.Mismatch]:
        """Return kept mismatches, without bodies and values. Raises InvalidRequest."""
        return await self._examples.find(wanted)

    async def mismatch(self, route: str, record_id: str) -> pb.Mismatch:
        """Return a kept mismatch, whole. Raises NotFound."""
        return await self._examples.get(route, record_id)

    def note_counts(self, now_ns: int) -> None:
        """Remember the counts of now: what grows from here on is recent for a minute."""
        self._recent.note(now_ns)

    def _add_recent(self, route: str, status: pb.RouteStatus) -> None:
        growth = self._recent.growth
        for variant in status.variants:
            traffic, key = self._traffic.variant(route, variant.name), (route, variant.name)
            variant.recent_requests = growth((*key, "requests"), traffic.requests)
            variant.recent_errors = growth((*key, "errors"), traffic.errors)
        turned_away = sum(self._traffic.refusals_of(route).values())
        status.recent_turned_away = growth((route, "turned_away"), turned_away)
        status.reports.recent_dropped = growth("dropped", self._reports.dropped.total())

    def _spans_trouble(self) -> str:
        """Return why spans are lost; "" where none was within the last minute.

        Whether they could be exported again is only known once there are others.
        """
        lost = self._recent.growth("spans_lost", self._spans_lost())
        return (self._spans.trouble() or f"{lost:,} spans lost within a minute") if lost else ""

    def _spans_lost(self) -> int:
        return sum(n for what, n in self._spans.totals().items() if what.startswith("dropped"))

    def _counts(self) -> Mapping[Hashable, int]:
        """Return the counts of which it matters whether they still grow."""
        counts: dict[Hashable, int] = {
            "dropped": self._reports.dropped.total(),
            "spans_lost": self._spans_lost(),
        }
        for (route, variant), traffic in self._traffic.variants():
            counts[route, variant, "requests"] = traffic.requests
            counts[route, variant, "errors"] = traffic.errors
        for route, refused in self._traffic.refusals():
            counts[route, "turned_away"] = sum(refused.values())
        return counts

    def _gates(self, route: str) -> GateSettings:
        return self._routes.get(route, UNSET).gates


def _is_of(route: Route, trial: Trial) -> bool:
    """Return whether the route still has both sides."""
    return trial.pair.reference in route.by_name and trial.pair.candidate in route.by_name

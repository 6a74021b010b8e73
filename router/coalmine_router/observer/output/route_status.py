"""The status of a route as a message, from the observer's counts."""

from collections.abc import Iterable

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.comparer import ComparingCounts
from coalmine_router.observer.evidence.address_evidence import AsksReady, none_known
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.output.trial_status import trial_counts
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey, ReportTotals
from coalmine_router.observer.traffic_counts import VariantTraffic
from coalmine_router.table import STABLE


def fill_traffic(status: pb.VariantStatus, traffic: VariantTraffic) -> None:
    """Fill in the requests that a variant answered, and those that another answered for it."""
    status.requests = traffic.requests
    status.split_requests = traffic.by_split
    status.latency_p50_ms = traffic.latencies.quantile_ns(0.50) / 10**6
    status.latency_p99_ms = traffic.latencies.quantile_ns(0.99) / 10**6
    status.requests_by_status.clear()
    status.requests_by_status.update(traffic.by_code)
    status.fallbacks.clear()
    status.fallbacks.update(traffic.fallbacks)


def fill_trials(
    status: pb.RouteStatus,
    trials: Iterable[Trial],
    gates: GateSettings,
    ready: AsksReady = none_known,
) -> None:
    """Fill in the verdict on the route, and the counts of each candidate's trial."""
    found = list(trials)
    status.verdict = route_verdict(found)
    status.comparisons.extend(trial_counts(trial, gates, ready) for trial in found)


def route_verdict(trials: Iterable[Trial]) -> str:
    """Return the verdict on a route from its current trials; "" where it has no candidate.

    Only trials against stable count: one FAIL fails the route, and all must pass for a PASS. In a
    trial of a shadow against a canary, the canary may be the one that is wrong.
    """
    words = {trial.shown_verdict.verdict for trial in trials if trial.pair.reference == STABLE}
    if not words:
        return ""
    if "fail" in words:
        return "fail"
    return "pass" if words == {"pass"} else "inconclusive"


def report_counts(totals: ReportTotals) -> pb.ReportCounts:
    """Return how many reports the proxies made and dropped, and how many arrived."""
    return pb.ReportCounts(
        offered=totals.offered, received=totals.received, dropped=dict(totals.dropped)
    )


def copy_counts(key: CopyQueueKey, totals: CopyCounts) -> pb.ShadowCounts:
    """Return the fates of the copies for one variant, in one role."""
    return pb.ShadowCounts(
        variant=key.variant,
        role=key.role,
        offered=totals.offered,
        waiting=totals.waiting,
        under_way=totals.under_way,
        sent=totals.sent,
        timed_out=totals.timed_out,
        failed=totals.failed,
        answered=totals.answered,
        compared=totals.compared,
        uncompared=totals.uncompared,
        dropped=dict(totals.dropped),
        circuit=totals.circuit,
    )


def comparing_message(counts: ComparingCounts) -> pb.Comparing:
    """Return how comparing keeps up."""
    return pb.Comparing(
        waiting=counts.waiting,
        waiting_bytes=counts.waiting_bytes,
        share_bp=counts.share_bp,
        processes=counts.processes,
        compared=counts.compared,
        left_out=counts.left_out,
    )

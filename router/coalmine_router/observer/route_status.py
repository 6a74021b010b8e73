"""What an operator is told of a route, from the observer's counts. Pure."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.evidence import Pair, PairEvidence
from coalmine_router.observer.totals import ReportTotals, ShadowTotals
from coalmine_router.observer.traffic import VariantTraffic


def tell_traffic(status: pb.VariantStatus, traffic: VariantTraffic) -> None:
    """Fill in what a variant answered, and what another answered for it."""
    status.requests = traffic.requests
    status.split_requests = traffic.by_split
    status.latency_p50_ms = traffic.latencies.quantile_ns(0.50) / 10**6
    status.latency_p99_ms = traffic.latencies.quantile_ns(0.99) / 10**6
    status.requests_by_status.clear()
    status.requests_by_status.update(traffic.by_code)
    status.fallbacks.clear()
    status.fallbacks.update(traffic.fallbacks)


def comparison_counts(pair: Pair, evidence: PairEvidence) -> pb.ComparisonCounts:
    """Return the evidence of one pair."""
    return pb.ComparisonCounts(
        reference=pair.reference,
        candidate=pair.candidate,
        match=evidence.outcomes["match"],
        mismatch=evidence.outcomes["mismatch"],
        error=evidence.outcomes["error"],
        skipped=evidence.outcomes["skipped"],
        outputs=[
            pb.OutputCounts(
                output=name,
                match=output.match,
                mismatch=output.mismatch,
                max_abs_diff=output.max_abs_diff,
            )
            for name, output in evidence.outputs.items()
        ],
    )


def report_counts(totals: ReportTotals) -> pb.ReportCounts:
    """Return what the proxies made and gave up, and what arrived."""
    return pb.ReportCounts(
        offered=totals.offered, received=totals.received, dropped=dict(totals.dropped)
    )


def shadow_counts(variant: str, totals: ShadowTotals) -> pb.ShadowCounts:
    """Return what became of the copies for one shadow."""
    return pb.ShadowCounts(
        variant=variant, offered=totals.offered, sent=totals.sent, dropped=dict(totals.dropped)
    )

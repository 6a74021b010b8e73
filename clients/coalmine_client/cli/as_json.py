"""The JSON that `--json` prints. Pure; what is here stays: fields may join, none changes or goes.

Shares are integers in hundredths of a percent (`_bp`), as on the wire. Times are ISO 8601 in UTC,
null for none. A rate is null where nothing was counted. Numbers that JSON has no word for are the
texts "NaN", "Infinity" and "-Infinity".
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from coalmine.control.v1 import control_pb2 as pb

Json = dict[str, Any]


def routes(found: pb.ListRoutesResponse) -> Json:
    """Return {revision, routes: [route]}."""
    return {"revision": found.revision, "routes": [route(each) for each in found.routes]}


def route(of: pb.Route) -> Json:
    """Return a route with its variants and shadows."""
    return {
        "name": of.name,
        "match_model": of.match_model,
        "match_default": of.match_default,
        "match_service": of.match_service,
        "match_method": of.match_method,
        "variants": [_variant(each) for each in of.variants],
        "shadows": [{"variant": each.variant, "share_bp": each.share_bp} for each in of.shadows],
        "sticky_metadata": of.sticky_metadata,
        "sticky_parameter": of.sticky_parameter,
        "sticky_id": of.sticky_id,
        "timeout_ms": of.timeout_ns / 1e6,
        "pinning": of.pinning,
        "fallback": of.fallback,
        "limits": {"in_flight_max": of.limits.in_flight_max, "bytes_max": of.limits.bytes_max},
    }


def _variant(of: pb.Variant) -> Json:
    return {
        "name": of.name,
        "backend": of.backend,
        "model": of.model,
        "version": of.version,
        "weight_bp": of.weight_bp,
    }


def status(of: pb.RouteStatus) -> Json:
    """Return {revision, counting_since, route, variants, …, proxies, reports, turned_away}.

    `route` is what was asked for; the lists beside it are what was counted.
    """
    split_requests = sum(each.split_requests for each in of.variants)
    return {
        "revision": of.revision,
        "counting_since": moment(of.counting_since_ns),
        "route": route(of.route),
        "variants": [_traffic(each, split_requests) for each in of.variants],
        "shadows": [_shadow(each) for each in of.shadows],
        "comparisons": [_comparison(each) for each in of.comparisons],
        "proxies": [_proxy(each) for each in of.proxies],
        "reports": {
            "offered": of.reports.offered,
            "received": of.reports.received,
            "dropped": _by_name(of.reports.dropped),
        },
        "turned_away": _by_name(of.turned_away),
    }


def _traffic(of: pb.VariantStatus, split_requests: int) -> Json:
    return {
        "name": of.name,
        "ready": of.ready,
        "reason": of.reason,
        "requests": of.requests,
        "requests_by_status": _by_name(of.requests_by_status),
        "split_requests": of.split_requests,
        "split_share": _rate(of.split_requests, split_requests),
        "fallbacks": _by_name(of.fallbacks),
        "latency_p50_ms": number(of.latency_p50_ms),
        "latency_p99_ms": number(of.latency_p99_ms),
    }


def _shadow(of: pb.ShadowCounts) -> Json:
    return {
        "variant": of.variant,
        "offered": of.offered,
        "sent": of.sent,
        "dropped": _by_name(of.dropped),
    }


def _comparison(of: pb.ComparisonCounts) -> Json:
    return {
        "reference": of.reference,
        "candidate": of.candidate,
        "match": of.match,
        "mismatch": of.mismatch,
        "error": of.error,
        "skipped": of.skipped,
        "mismatch_rate": _rate(of.mismatch, of.match + of.mismatch),
        "outputs": [
            {
                "output": each.output,
                "match": each.match,
                "mismatch": each.mismatch,
                "max_abs_diff": number(each.max_abs_diff),
            }
            for each in of.outputs
        ],
    }


def _proxy(of: pb.ProxyStatus) -> Json:
    return {
        "proxy_id": of.proxy_id,
        "revision": of.revision,
        "connected_since": moment(of.connected_since_ns),
        "refused": of.refused,
        "saved_ms": of.saved_ns / 1e6,
        "reach": [_reach(each) for each in of.reach],
    }


def _reach(of: pb.VariantReach) -> Json:
    return {
        "variant": of.variant,
        "addresses": of.addresses,
        "available": of.available,
        "troubles": list(of.troubles),
    }


def history(found: pb.GetHistoryResponse) -> Json:
    """Return {changes: [{revision, route, at, actor, reason, action, before, after}]}."""
    return {"changes": [_change(each) for each in found.changes]}


def _change(of: pb.Change) -> Json:
    return {
        "revision": of.revision,
        "route": of.route,
        "at": moment(of.at_ns),
        "actor": of.actor,
        "reason": of.reason,
        "action": of.action,
        "before": _split(of.before),
        "after": _split(of.after),
    }


def _split(of: pb.Split) -> Json:
    return {"weights_bp": _by_name(of.weights_bp), "shadows_bp": _by_name(of.shadows_bp)}


def mismatches(found: pb.ListMismatchesResponse) -> Json:
    """Return {mismatches: [mismatch]}."""
    return {"mismatches": [mismatch(each) for each in found.mismatches]}


def mismatch(of: pb.Mismatch) -> Json:
    """Return a mismatch without its bodies."""
    return {
        "id": of.id,
        "at": moment(of.at_ns),
        "route": of.route,
        "reference": of.reference,
        "candidate": of.candidate,
        "trace_id": of.trace_id.hex(),
        "bodies_dropped": of.bodies_dropped,
        "differences": [_difference(each) for each in of.differences],
    }


def _difference(of: pb.Difference) -> Json:
    return {
        "output": of.output,
        "kind": of.kind,
        "index": list(of.index),
        "expected": of.expected,
        "actual": of.actual,
        "max_abs_diff": number(of.max_abs_diff),
        "differing": of.differing,
        "elements": of.elements,
    }


# ---------------------------------------------------------------- values


def moment(at_ns: int) -> str | None:
    """Return a time as ISO 8601 in UTC, to the microsecond; None for none."""
    if not at_ns:
        return None
    seconds, ns = divmod(at_ns, 1_000_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def number(value: float) -> float | str:
    """Return the number, or the text for one that JSON can't hold."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _by_name(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None

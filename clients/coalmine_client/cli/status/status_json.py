"""The JSON of a route's status. Pure; by the rules of as_json."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.as_json import Json, by_name, health, moment, number, rate, route
from coalmine_client.cli.evidence_json import comparison
from coalmine_client.cli.route_health import health_of


def status(of: pb.RouteStatus) -> Json:
    """Return {health, revision, verdict, counting_since, route, variants, …, reports, turned_away}.

    `route` is what was asked for; the lists beside it are what was counted. `comparisons` are of
    the current trials, whenever those began.
    """
    split_requests = sum(each.split_requests for each in of.variants)
    return {
        "health": health(health_of(of)),
        "revision": of.revision,
        "verdict": of.verdict,
        "troubles": list(of.troubles),
        "at": moment(of.at_ns),
        "counting_since": moment(of.counting_since_ns),
        "route": route(of.route),
        "variants": [_traffic(each, split_requests) for each in of.variants],
        "comparing": _comparing(of.comparing),
        "shadows": [_shadow(each) for each in of.shadows],
        "comparisons": [comparison(each) for each in of.comparisons],
        "proxies": [_proxy(each) for each in of.proxies],
        "reports": {
            "offered": of.reports.offered,
            "received": of.reports.received,
            "dropped": by_name(of.reports.dropped),
            "recent_dropped": of.reports.recent_dropped,
        },
        "turned_away": by_name(of.turned_away),
        "recent_turned_away": of.recent_turned_away,
    }


def _traffic(of: pb.VariantStatus, split_requests: int) -> Json:
    return {
        "name": of.name,
        "ready": of.ready,
        "reason": of.reason,
        "requests": of.requests,
        "requests_by_status": by_name(of.requests_by_status),
        "split_requests": of.split_requests,
        "split_share": rate(of.split_requests, split_requests),
        "fallbacks": by_name(of.fallbacks),
        "recent_requests": of.recent_requests,
        "recent_errors": of.recent_errors,
        "latency_p50_ms": number(of.latency_p50_ms),
        "latency_p99_ms": number(of.latency_p99_ms),
    }


def _shadow(of: pb.ShadowCounts) -> Json:
    return {
        "variant": of.variant,
        "role": of.role or "shadow",
        "offered": of.offered,
        "waiting": of.waiting,
        "under_way": of.under_way,
        "sent": of.sent,
        "timed_out": of.timed_out,
        "failed": of.failed,
        "answered": of.answered,
        "compared": of.compared,
        "uncompared": of.uncompared,
        "dropped": by_name(of.dropped),
        "circuit": of.circuit,
    }


def _comparing(of: pb.Comparing) -> Json:
    return {
        "share_bp": of.share_bp,
        "processes": of.processes,
        "waiting": of.waiting,
        "waiting_bytes": of.waiting_bytes,
        "compared": of.compared,
        "left_out": of.left_out,
    }


def _proxy(of: pb.ProxyStatus) -> Json:
    return {
        "proxy_id": of.proxy_id,
        "revision": of.revision,
        "connected_since": moment(of.connected_since_ns),
        "refused": of.refused,
        "saved_ms": of.saved_ns / 1e6,
        "trouble": of.trouble,
        "reach": [_reach(each) for each in of.reach],
    }


def _reach(of: pb.VariantReach) -> Json:
    return {
        "variant": of.variant,
        "addresses": of.addresses,
        "available": of.available,
        "troubles": list(of.troubles),
    }

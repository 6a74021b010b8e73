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
from coalmine_client.cli.route_health import RouteHealth

Json = dict[str, Any]


def routes(found: pb.ListRoutesResponse, healths: Mapping[str, RouteHealth]) -> Json:
    """Return {revision, routes: [route, with health: null where it isn't known]}."""
    return {
        "revision": found.revision,
        "routes": [
            {**route(each), "health": health(healths.get(each.name))} for each in found.routes
        ],
    }


def health(of: RouteHealth | None) -> Json | None:
    """Return {state, reasons}."""
    return {"state": of.word, "reasons": list(of.reasons)} if of else None


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
        "audit_bp": of.audit_bp,
        "noise_bp": of.noise_bp,
        "copy_methods": list(of.copy_methods),
        "stateful": of.stateful,
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
    return {"weights_bp": by_name(of.weights_bp), "shadows_bp": by_name(of.shadows_bp)}


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


def by_name(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts, sorted by their names."""
    return dict(sorted(counts.items()))


def rate(part: int, whole: int) -> float | None:
    """Return the share, 0 to 1; None where there is no whole."""
    return part / whole if whole else None

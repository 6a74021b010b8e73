"""What a route matches, and how it treats its requests, in words. Pure."""

from collections.abc import Iterator
from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent

# Who answers what nobody else does, and whom candidates are judged by.
STABLE: Final = "stable"


def match_text(route: pb.Route) -> str:
    """Return which requests a route answers."""
    if route.match_default:
        return "any other model"
    if route.match_service:
        return f"service {route.match_service}/{route.match_method or '*'}"
    return f"model {route.match_model}"


def sticky_key(route: pb.Route) -> str:
    """Return where the sticky key of a request is; "" for none."""
    if route.sticky_parameter:
        return f"parameter {route.sticky_parameter}"
    return "id" if route.sticky_id else route.sticky_metadata


def policy_facts(route: pb.Route) -> Iterator[str]:
    """Yield what is to be known of a route's requests beside its split."""
    if route.timeout_ns:
        yield f"timeout {route.timeout_ns / 1e9:g}s"
    if place := sticky_key(route):
        yield f"sticky by {place}"
    if route.pinning:
        yield "may be pinned"
    if route.fallback:
        yield "fallback on"
    if route.strict_version:
        yield "versions are strict"
    yield from _copy_facts(route)
    yield from _limit_facts(route.limits)


def _copy_facts(route: pb.Route) -> Iterator[str]:
    if route.stateful:
        yield "stateful: never copied"
    if route.audit_bp:
        yield f"audit {percent(route.audit_bp)}"
    if route.noise_bp:
        yield f"noise {percent(route.noise_bp)}"


def _limit_facts(limits: pb.Limits) -> Iterator[str]:
    if limits.in_flight_max:
        yield f"{limits.in_flight_max:,} in flight at most"
    if limits.bytes_max:
        yield f"{limits.bytes_max / 2**20:g} MiB in flight at most"


def copy_shares(route: pb.Route) -> dict[tuple[str, str], int]:
    """Return the share that is copied, by role and variant: shadow, audit and noise."""
    shares = {("shadow", each.variant): each.share_bp for each in route.shadows}
    shares |= {("audit", name): route.audit_bp for name in _variants_sent_audits(route)}
    if route.noise_bp:
        shares["noise", STABLE] = route.noise_bp
    return shares


def _variants_sent_audits(route: pb.Route) -> list[str]:
    """Return who gets audits: stable, of what the others answer; the others, of what it answers."""
    weighted = {each.name for each in route.variants if each.weight_bp}
    asked = {STABLE} if weighted - {STABLE} else set()
    if STABLE in weighted:
        asked |= weighted - {STABLE}
    return [each.name for each in route.variants if each.name in asked and route.audit_bp]

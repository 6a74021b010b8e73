"""What a route matches, and how it treats its requests, in words. Pure."""

from collections.abc import Iterator

from coalmine.control.v1 import control_pb2 as pb


def match(route: pb.Route) -> str:
    """Return which requests a route answers."""
    if route.match_default:
        return "any other model"
    if route.match_service:
        return f"service {route.match_service}/{route.match_method or '*'}"
    return f"model {route.match_model}"


def sticky(route: pb.Route) -> str:
    """Return where the sticky key of a request is; "" for none."""
    if route.sticky_parameter:
        return f"parameter {route.sticky_parameter}"
    return "id" if route.sticky_id else route.sticky_metadata


def policy(route: pb.Route) -> Iterator[str]:
    """Yield what is to be known of a route's requests beside its split."""
    if route.timeout_ns:
        yield f"timeout {route.timeout_ns / 1e9:g}s"
    if place := sticky(route):
        yield f"sticky by {place}"
    if route.pinning:
        yield "may be pinned"
    if route.fallback:
        yield "fallback on"
    if route.limits.in_flight_max:
        yield f"{route.limits.in_flight_max:,} in flight at most"
    if route.limits.bytes_max:
        yield f"{route.limits.bytes_max / 2**20:g} MiB in flight at most"

"""Chooses who answers a request: a variant by the route's policy, and one of its addresses."""

from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router import wire
from coalmine_router.backends.address import Address
from coalmine_router.proxy.admission import NotReached
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.routing import BoundVariant, RoutedRoute

# Both choose by weight. An audit compares two sides that were chosen so.
_SPLIT: Final = frozenset({pb.ASSIGNMENT_SPLIT, pb.ASSIGNMENT_STICKY})


def assign_variant(exchange: Exchange, routed: RoutedRoute) -> Address:
    """Note the variant, the reason and the copies; return the address to call.

    If the split or a key gives a variant that is not ready, stable stands in. Raises
    NotFound where the caller named another version and the route is strict.
    """
    key = _sticky_key(exchange, routed) if routed.route.sticky else None
    variant, exchange.reason = routed.assigner.assign(exchange.caller.pin, key)
    bound = exchange.bound = routed.variants[variant.name]
    if not bound.endpoints.is_ready and bound is not routed.stable and not exchange.is_pinned:
        exchange.fall_back_to_stable()
        bound = routed.stable
    routed.check_version(bound, exchange.version)
    copying = routed.assigner.copying
    if copying is not None and routed.route.may_copy(exchange.method):
        exchange.copies = copying.draw(bound.variant, is_split=exchange.reason in _SPLIT)
    return bound.endpoints.pick() or pick_address(bound)


def pick_address(bound: BoundVariant) -> Address:
    """Return the address to call, even the least bad one. Raises NotReached."""
    address = bound.endpoints.pick_any()
    if address is None:
        raise NotReached(f"variant '{bound.variant.name}': {bound.endpoints.trouble}")
    return address


def _sticky_key(exchange: Exchange, routed: RoutedRoute) -> str | None:
    sticky = routed.route.sticky
    if sticky.metadata:
        return exchange.caller.metadata_value(sticky.metadata)
    if sticky.parameter:
        return wire.parameter(exchange.request, sticky.parameter)
    return wire.request_id(exchange.request)

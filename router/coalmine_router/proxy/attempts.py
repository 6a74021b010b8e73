"""The attempts of one request: a first call, and at most one more after a failure."""

import random
import time
from typing import Final, NamedTuple

import grpc

from coalmine_router.backends.address import Address
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.forward import Attempt, Outcome
from coalmine_router.proxy.routing import BoundVariant, RoutedRoute

_UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
_SILENT: Final = (_UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def start_first_attempt(exchange: Exchange, routed: RoutedRoute, address: Address) -> Attempt:
    """Begin the first attempt, at the variant that the request was assigned, and return it."""
    bound = exchange.bound_variant()
    timeout_s = exchange.timeout_s
    if routed.route.fallback:
        timeout_s = _take_first_timeout_s(exchange, routed, bound)
    now_ns = time.perf_counter_ns()
    attempt = Attempt(bound, address, exchange.trace.call_span_id, now_ns, timeout_s)
    exchange.add_attempt(attempt)
    return attempt


def start_second_attempt(
    exchange: Exchange,
    routed: RoutedRoute,
    failed: Attempt,
    outcome: Outcome,
    rng: random.Random,
) -> Attempt | None:
    """Begin an attempt after a failed one, and return it; None: the failure stands."""
    found = _choose_second_place(exchange, routed, failed, outcome)
    if found is None:
        return None
    if found.bound is not failed.bound:
        exchange.fall_back_to_stable()
    span_id = rng.getrandbits(64).to_bytes(8, "big")
    now_ns = time.perf_counter_ns()
    attempt = Attempt(found.bound, found.address, span_id, now_ns, exchange.left_s())
    exchange.add_attempt(attempt)
    return attempt


def _take_first_timeout_s(exchange: Exchange, routed: RoutedRoute, bound: BoundVariant) -> float:
    """Return the time for the first attempt: half of it, where stable could use the other half."""
    now_s = exchange.began_ns // 10**9
    routed.budget.count_request(now_s)
    if bound is routed.stable or exchange.is_pinned or not routed.budget.has_retry_left(now_s):
        return exchange.timeout_s
    return exchange.timeout_s / 2


class _Place(NamedTuple):
    bound: BoundVariant
    address: Address


def _choose_second_place(
    exchange: Exchange, routed: RoutedRoute, failed: Attempt, outcome: Outcome
) -> _Place | None:
    # A status of the model's own is an answer. So is the beginning of an answer.
    is_silent = outcome.code in _SILENT or outcome.is_unreadable
    if not is_silent or outcome.initial or exchange.left_s() <= 0:
        return None
    if not outcome.is_untouched:
        return _take_stable_within_budget(exchange, routed, failed, outcome)
    # The backend closed the connection, and said that it never looked at the call.
    other = failed.bound.endpoints.pick_other(failed.address)
    if other is None and failed.address.is_out_of_reach():
        found = _take_stable_within_budget(exchange, routed, failed, outcome)
        if found is not None:
            return found
    return _Place(failed.bound, other or failed.address)


def _take_stable_within_budget(
    exchange: Exchange, routed: RoutedRoute, failed: Attempt, outcome: Outcome
) -> _Place | None:
    if not routed.route.fallback or exchange.is_pinned:
        return None
    address = _pick_stable_address(routed, failed, outcome)
    if routed.refuses(routed.stable, exchange.version):
        return None
    if address is None or not routed.budget.take_retry(time.perf_counter_ns() // 10**9):
        return None
    return _Place(routed.stable, address)


def _pick_stable_address(routed: RoutedRoute, failed: Attempt, outcome: Outcome) -> Address | None:
    endpoints = routed.stable.endpoints
    if failed.bound is not routed.stable:
        return endpoints.pick() or endpoints.pick_any()
    # A failed call to stable itself: take another of its addresses, if one was out of reach.
    return endpoints.pick_other(failed.address) if outcome.code is _UNAVAILABLE else None

"""The calls that one request makes: the first, and where that fails at most one more."""

import random
import time
from typing import NamedTuple

import grpc

from coalmine_router.proxy.backends.address import Address
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.forward import Attempt, Outcome, forward
from coalmine_router.proxy.routing import BoundVariant, RoutedRoute


class Second(NamedTuple):
    """Where a request goes once more."""

    bound: BoundVariant
    address: Address


async def answered(
    exchange: Exchange, routed: RoutedRoute, address: Address, rng: random.Random
) -> Outcome:
    """Return how the request was answered: by the variant it was given to, or by the second."""
    bound = exchange.bound
    assert bound is not None  # noqa: S101 - it was assigned before
    first = Attempt(
        bound,
        address,
        exchange.trace.call_span_id,
        time.perf_counter_ns(),
        _first_timeout_s(exchange, routed, bound),
    )
    outcome = await _call(exchange, first)
    if outcome.is_ok:
        return outcome
    second = _second(exchange, routed, first, outcome)
    if second is None:
        return outcome
    if second.bound is not bound:
        exchange.fall_back()
    return await _call(exchange, _again(exchange, second, rng))


async def _call(exchange: Exchange, made: Attempt) -> Outcome:
    exchange.attempts.append(made)
    metadata = [
        *exchange.caller.metadata,
        *made.bound.lane.shown,
        exchange.trace.traceparent(made.span_id),
    ]
    return await forward(made, f"/{exchange.method}", exchange.request, metadata)


def _first_timeout_s(exchange: Exchange, routed: RoutedRoute, bound: BoundVariant) -> float:
    """Return the time for the first call: half of it, where stable could use the other half."""
    if not routed.route.fallback:
        return exchange.timeout_s
    second = exchange.began_ns // 10**9
    routed.budget.count(second)
    if bound is routed.stable or exchange.is_pinned or not routed.budget.has_left(second):
        return exchange.timeout_s
    return exchange.timeout_s / 2


def _again(exchange: Exchange, second: Second, rng: random.Random) -> Attempt:
    span_id = rng.getrandbits(64).to_bytes(8, "big")
    began_ns = time.perf_counter_ns()
    return Attempt(second.bound, second.address, span_id, began_ns, exchange.left_s())


def _second(
    exchange: Exchange, routed: RoutedRoute, first: Attempt, outcome: Outcome
) -> Second | None:
    """Return where a failed request goes once more; None: its failure is the answer."""
    if exchange.left_s() <= 0 or not _may_go_again(outcome):
        return None
    if outcome.is_untouched:
        # The connection closed under it, with the word that nobody had looked at it.
        return Second(first.bound, first.bound.lane.other(first.address) or first.address)
    if not routed.route.fallback or exchange.is_pinned:
        return None
    address = _elsewhere(routed, first, outcome)
    if address is None or not routed.budget.take(time.perf_counter_ns() // 10**9):
        return None
    return Second(routed.stable, address)


def _may_go_again(outcome: Outcome) -> bool:
    """Whether nothing was answered: no status of the model's own, and no beginning of one."""
    silent = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return outcome.code in silent and not outcome.initial


def _elsewhere(routed: RoutedRoute, first: Attempt, outcome: Outcome) -> Address | None:
    lane = routed.stable.lane
    if first.bound is not routed.stable:
        return lane.pick() or lane.pick_any()
    # Stable's own: another of its addresses, if one was found to be out of reach.
    return lane.other(first.address) if outcome.code is grpc.StatusCode.UNAVAILABLE else None

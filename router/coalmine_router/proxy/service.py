"""The data plane: assign, forward, reply, report. Requests are bytes; no tensor is decoded here."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, NoReturn

import grpc

from coalmine.errors import CoalmineError, Unavailable
from coalmine.hold import Hold
from coalmine.inference import MODEL_INFER
from coalmine.status import end as end_with
from coalmine.status import status_of
from coalmine.telemetry import ORIGIN_KEY, ORIGIN_ROUTER
from coalmine.trace_context import HeadSampler
from coalmine_router import wire
from coalmine_router.metadata import Pair, showing
from coalmine_router.proxy import attempts
from coalmine_router.proxy.admission import Admission, NotReached, TurnedAway, reason_of
from coalmine_router.proxy.backends.address import Address
from coalmine_router.proxy.caller import Caller, caller_of
from coalmine_router.proxy.exchange import Exchange, begin_trace
from coalmine_router.proxy.forward import Attempt, Outcome, forward
from coalmine_router.proxy.report import bodies_of, report_of
from coalmine_router.proxy.routing import NOTHING_ROUTED, BoundVariant, RoutedRoute, Routing
from coalmine_router.table import Limits

Context = grpc.aio.ServicerContext[bytes, bytes]
# Takes a serialised Report, and more fields of it.
TakesReport = Callable[[bytes, bytes], None]

# gRPC rounds deadlines up on the way: a caller whose time is over hangs up a little before that.
_EARLY_S: Final = 0.005
_EARLY_SHARE: Final = 0.02

FROM_ROUTER: Final[Pair] = (ORIGIN_KEY, ORIGIN_ROUTER)


class DataPlane:
    """Answers for what the current routing matches.

    Of a request, in order: `begun`, `matched`, `assigned`, `_answered`, `ended`, `reply`.
    """

    def __init__(
        self,
        *,
        report: TakesReport,
        sampler: HeadSampler,
        rng: random.Random,
        drop_authorization: bool = False,
    ) -> None:
        self.routing: Routing = NOTHING_ROUTED
        self.admission = Admission("this proxy", Limits())
        self.hold = Hold()
        # Set when the process is about to end.
        self.ending = asyncio.Event()
        self._report = report
        self._sampler = sampler
        self._rng = rng
        self._drop_authorization = drop_authorization

    def route_by(self, routing: Routing) -> None:
        """Let new requests go by `routing`."""
        self.routing = routing
        self.admission.limits = routing.limits

    def refuse(self) -> None:
        """Turn every new request away: the process is about to end."""
        self.ending.set()

    async def infer(self, request: bytes, context: Context) -> bytes:
        """Answer a ModelInfer by the variant that it is assigned to."""
        exchange = self.begun(MODEL_INFER, request, context)
        try:
            routed = self.matched(exchange, request)
            address = self.assigned(exchange, routed, context)
        except CoalmineError as error:
            return await self.turned_away(exchange, error, context)
        return await self._answered(exchange, routed, address, context)

    async def call(
        self, routed: RoutedRoute, method: str, request: bytes, context: Context
    ) -> bytes:
        """Answer a unary call of another service, of which a route names the method."""
        exchange = self.begun(method, request, context)
        try:
            self._check_living()
            address = self.assigned(exchange, routed, context)
        except CoalmineError as error:
            return await self.turned_away(exchange, error, context)
        return await self._answered(exchange, routed, address, context)

    async def ask(self, method: str, request: bytes, context: Context) -> bytes:
        """Pass a question about a model to the variant that is pinned, else to stable."""
        caller = self._caller(context)
        try:
            bound, address, timeout_s = self._asked(caller, request, context)
        except CoalmineError as error:
            return await self._reply(context, refusal(error), ())
        attempt = Attempt(bound, address, b"", time.perf_counter_ns(), timeout_s)
        metadata = [*showing(caller.metadata, bound.lane.shown), *caller.trace()]
        outcome = await forward(attempt, f"/{method}", request, metadata)
        return await self._reply(context, outcome, bound.stamp)

    def knows(self, request: bytes) -> bool:
        """Return whether a route matches the model that a request names. Raises InvalidRequest."""
        routing = self.routing
        return routing.default is not None or wire.model_name(request) in routing.by_model

    # ------------------------------------------------------------ before the call

    def begun(self, method: str, request: bytes, context: Context) -> Exchange:
        """Return the exchange of a request that has just come."""
        wall_ns, began_ns = time.time_ns(), time.perf_counter_ns()
        caller = self._caller(context)
        trace = begin_trace(caller, self._sampler, self._rng)
        return Exchange(method, request, caller, trace, wall_ns=wall_ns, began_ns=began_ns)

    def matched(self, exchange: Exchange, request: bytes) -> RoutedRoute:
        """Return the route of the model that a request names. Raises NotFound, InvalidRequest."""
        self._check_living()
        name = wire.model_name(request)
        routed = self.routing.of_model(name)
        if routed.route.match.is_default:
            exchange.model = name
        return routed

    def assigned(self, exchange: Exchange, routed: RoutedRoute, context: Context) -> Address:
        """Let a request in, until `let_out`, give it a variant, and return where that is called.

        Raises TurnedAway, Unavailable, and what a pin can do wrong.
        """
        remaining = context.time_remaining()
        exchange.timeout_s = routed.timeout_s if remaining is None else remaining
        exchange.routed = routed
        size = exchange.request_bytes
        routed.admission.admit(size)
        try:
            self.admission.admit(size)
        except TurnedAway:
            routed.admission.release(size)
            raise
        try:
            return _chosen(exchange, routed)
        except BaseException:
            self.let_out(exchange, routed)
            raise

    def let_out(self, exchange: Exchange, routed: RoutedRoute) -> None:
        """Make room for the next request."""
        routed.admission.release(exchange.request_bytes)
        self.admission.release(exchange.request_bytes)

    def _caller(self, context: Context) -> Caller:
        return caller_of(
            context.invocation_metadata() or (), drop_authorization=self._drop_authorization
        )

    def _check_living(self) -> None:
        if self.ending.is_set():
            raise Unavailable("this router is ending, another answers")
        if self.routing is NOTHING_ROUTED:
            raise Unavailable("the router has no route table yet")

    def _asked(
        self, caller: Caller, request: bytes, context: Context
    ) -> tuple[BoundVariant, Address, float]:
        self._check_living()
        routed = self.routing.of_model(wire.model_name(request))
        bound = routed.stable
        if caller.pin is not None:
            bound = routed.variants[routed.assigner.pinned(caller.pin).name]
        remaining = context.time_remaining()
        return bound, _reached(bound), routed.timeout_s if remaining is None else remaining

    # ------------------------------------------------------------ the call, and after it

    async def _answered(
        self, exchange: Exchange, routed: RoutedRoute, address: Address, context: Context
    ) -> bytes:
        try:
            outcome = await self._outcome(exchange, routed, address)
            self.ended(exchange, outcome)
        except asyncio.CancelledError:
            self.given_up(exchange, context)
            raise
        except Exception:
            self.broken(exchange)
            raise
        finally:
            self.let_out(exchange, routed)
        return await self._reply(context, outcome, exchange.answering().stamp)

    async def _outcome(self, exchange: Exchange, routed: RoutedRoute, address: Address) -> Outcome:
        method, request = f"/{exchange.method}", exchange.request
        call = attempts.first(exchange, routed, address)
        outcome = await forward(call, method, request, exchange.metadata_of(call))
        if outcome.is_ok:
            return outcome
        again = attempts.second(exchange, routed, call, outcome, self._rng)
        if again is None:
            return outcome
        return await forward(again, method, request, exchange.metadata_of(again))

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Report a request that has come to its end."""
        exchange.is_reported = True
        report = report_of(exchange, outcome, time.perf_counter_ns())
        self._report(report, bodies_of(exchange, outcome) if exchange.shadows else b"")

    def given_up(self, exchange: Exchange, context: Context) -> None:
        """Report a request whose caller stopped waiting, if it has not been."""
        self._broken_off(exchange, _gone(exchange, context))

    def broken(self, exchange: Exchange) -> None:
        """Report a request that an error of ours has ended, if it has not been.

        What went wrong is told at the edge; that it did must not be missing from the counts.
        """
        self._broken_off(exchange, _unexpected())

    def _broken_off(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.is_reported:
            return
        if exchange.attempts and not exchange.attempts[-1].ended_ns:
            exchange.attempts[-1].end(outcome)
        self.ended(exchange, outcome)

    async def turned_away(
        self, exchange: Exchange, error: CoalmineError, context: Context
    ) -> bytes:
        """Refuse a request in the router's own name."""
        exchange.turned_away = reason_of(error)
        outcome = refusal(error)
        self.ended(exchange, outcome)
        return await self._reply(context, outcome, ())

    async def _reply(self, context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> bytes:
        """Return the answer to the caller, or end the call with its error; not in the hold."""
        if self.hold.is_on:
            await self.hold.wait(context.time_remaining())
        if outcome.initial:
            await context.send_initial_metadata(tuple(outcome.initial))
        if not outcome.is_ok:
            await end(context, outcome, stamp)
        context.set_trailing_metadata((*outcome.trailing, *stamp) if outcome.trailing else stamp)
        return outcome.response


def _chosen(exchange: Exchange, routed: RoutedRoute) -> Address:
    """Note who is to answer, why, and which shadows get a copy; return who is called.

    A variant that can't be reached is not ready: what the split gives it goes to stable.
    """
    key = _sticky_key(exchange, routed) if routed.route.sticky else None
    variant, exchange.reason = routed.assigner.assign(exchange.caller.pin, key)
    bound = exchange.bound = routed.variants[variant.name]
    if not bound.lane.is_ready and bound is not routed.stable and not exchange.is_pinned:
        exchange.fall_back()
        bound = routed.stable
    if routed.route.shadows:
        exchange.shadows = routed.assigner.shadows(bound.variant)
    return bound.lane.pick() or _reached(bound)


def _reached(bound: BoundVariant) -> Address:
    """Return the address to call, be it the least bad one. Raises TurnedAway."""
    address = bound.lane.pick_any()
    if address is None:
        raise NotReached(f"variant '{bound.variant.name}': {bound.lane.trouble}")
    return address


def _sticky_key(exchange: Exchange, routed: RoutedRoute) -> str | None:
    sticky = routed.route.sticky
    if sticky.metadata:
        return exchange.caller.value(sticky.metadata)
    if sticky.parameter:
        return wire.parameter(exchange.request, sticky.parameter)
    return wire.request_id(exchange.request)


def refusal(error: CoalmineError) -> Outcome:
    """Return how a call ends that the router itself refuses."""
    return Outcome(status_of(error), str(error), b"", (), (), here=True)


def _unexpected() -> Outcome:
    return Outcome(grpc.StatusCode.INTERNAL, "internal error", b"", (), (), here=True)


def _gone(exchange: Exchange, context: Context) -> Outcome:
    """Return how a call ended whose caller stopped waiting for it."""
    remaining = context.time_remaining()
    spent = remaining is not None and remaining <= _EARLY_S + _EARLY_SHARE * exchange.timeout_s
    code = grpc.StatusCode.DEADLINE_EXCEEDED if spent else grpc.StatusCode.CANCELLED
    return Outcome(code, "the caller stopped waiting", b"", (), ())


async def end(context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> NoReturn:
    """End a call with the status of `outcome`, saying who made it."""
    origin = (FROM_ROUTER,) if outcome.here else ()
    trailing = (*outcome.trailing, *stamp, *origin)
    await end_with(context, outcome.code, outcome.message, trailing)

"""The data plane: assign, forward, reply, report. Requests are bytes; no tensor is decoded here."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, NoReturn

import grpc

from coalmine.errors import CoalmineError, NotFound, Unavailable
from coalmine.hold import Hold
from coalmine.inference import MODEL_INFER
from coalmine.status import status_of
from coalmine.telemetry import ORIGIN_KEY, ORIGIN_ROUTER, REVISION_KEY, VARIANT_KEY
from coalmine.trace_context import HeadSampler
from coalmine_router import wire
from coalmine_router.proxy.caller import Caller, Pair, caller_of
from coalmine_router.proxy.exchange import Assigned, Began, Ended, Exchange, begin_trace
from coalmine_router.proxy.forward import Outcome, forward
from coalmine_router.proxy.routing import NOTHING_ROUTED, RoutedRoute, Routing
from coalmine_router.table import STABLE

Context = grpc.aio.ServicerContext[bytes, bytes]

FROM_ROUTER: Final[Pair] = (ORIGIN_KEY, ORIGIN_ROUTER)

# Of a name that a caller made up: with all of it, the answer could outgrow a call's metadata.
_NAME_CHARS_MAX: Final = 128


class DataPlane:
    """Answers for the models that the current routing matches."""

    def __init__(
        self, *, report: Callable[[Ended], None], sampler: HeadSampler, rng: random.Random
    ) -> None:
        self.routing: Routing = NOTHING_ROUTED
        self.hold = Hold()
        self._is_ending = False
        self._report = report
        self._sampler = sampler
        self._rng = rng

    def refuse(self) -> None:
        """Turn every new request away: the process is about to end."""
        self._is_ending = True

    async def infer(self, request: bytes, context: Context) -> bytes:
        """Answer a ModelInfer by the variant it is assigned to."""
        began = Began.now()
        caller = caller_of(context.invocation_metadata() or ())
        trace = begin_trace(caller, self._sampler, self._rng)
        exchange = Exchange(request, caller, trace, began)
        try:
            assigned = exchange.assigned = self._assign(request, caller, context)
        except CoalmineError as error:
            refused = Outcome(status_of(error), str(error), b"", (), (), here=True)
            self._report(exchange.ended(refused))
            return await _reply(context, refused, ())
        outcome = await self._call(exchange, assigned, context)
        if self.hold.is_on:
            await self.hold.wait(context.time_remaining())
        return await _reply(
            context, outcome, _stamp(assigned.variant.variant.name, assigned.revision)
        )

    async def ask(self, method: str, request: bytes, context: Context) -> bytes:
        """Pass a question about a model to the variant that is pinned, else to stable."""
        caller = caller_of(context.invocation_metadata() or ())
        routing = self.routing
        try:
            routed = self._matched(routing, request)
            name = STABLE if caller.pin is None else routed.route.variant(caller.pin).name
        except CoalmineError as error:
            refused = Outcome(status_of(error), str(error), b"", (), (), here=True)
            return await _reply(context, refused, ())
        variant = routed.variants[name]
        timeout_s = _timeout_s(routed, context)
        target = variant.target(f"/{method}")
        outcome = await forward(variant, target, request, caller.metadata, timeout_s)
        return await _reply(context, outcome, _stamp(name, routing.revision))

    def knows(self, request: bytes) -> bool:
        """Return whether a route matches the model that a request names. Raises InvalidRequest."""
        return wire.model_name(request) in self.routing.by_model

    def _assign(self, request: bytes, caller: Caller, context: Context) -> Assigned:
        routing = self.routing
        routed = self._matched(routing, request)
        sticky = routed.route.sticky_metadata
        key = caller.value(sticky) if sticky else None
        variant, reason = routed.assigner.assign(caller.pin, key)
        bound = routed.variants[variant.name]
        return Assigned(
            route=routed.route.name,
            model=routed.route.model,
            revision=routing.revision,
            variant=bound,
            target=bound.target(f"/{MODEL_INFER}"),
            reason=reason,
            shadows=routed.assigner.shadows(variant),
            timeout_s=_timeout_s(routed, context),
        )

    def _matched(self, routing: Routing, request: bytes) -> RoutedRoute:
        if self._is_ending:
            raise Unavailable("this router is ending, another answers")
        if routing is NOTHING_ROUTED:
            raise Unavailable("the router has no route table yet")
        name = wire.model_name(request)
        routed = routing.by_model.get(name)
        if routed is None:
            raise NotFound(f"no route for model '{name[:_NAME_CHARS_MAX]}'")
        return routed

    async def _call(self, exchange: Exchange, assigned: Assigned, context: Context) -> Outcome:
        metadata = [*exchange.caller.metadata, exchange.trace.traceparent()]
        exchange.call_began_ns = time.perf_counter_ns()
        try:
            outcome = await forward(
                assigned.variant, assigned.target, exchange.request, metadata, assigned.timeout_s
            )
        except asyncio.CancelledError:
            self._report(exchange.ended(_gone(context)))
            raise
        self._report(exchange.ended(outcome))
        return outcome


def _timeout_s(routed: RoutedRoute, context: Context) -> float:
    """Return the time that is left: the caller's, else the route's."""
    remaining = context.time_remaining()
    return routed.route.timeout_ns / 1e9 if remaining is None else remaining


def _gone(context: Context) -> Outcome:
    """Return how a call ended whose caller stopped waiting for it."""
    remaining = context.time_remaining()
    spent = remaining is not None and remaining <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if spent else grpc.StatusCode.CANCELLED
    return Outcome(code, "the caller stopped waiting", b"", (), ())


def _stamp(variant: str, revision: int) -> tuple[Pair, ...]:
    return (VARIANT_KEY, variant), (REVISION_KEY, str(revision))


async def _reply(context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> bytes:
    if outcome.initial:
        await context.send_initial_metadata(outcome.initial)
    if not outcome.is_ok:
        await _abort(context, outcome, stamp)
    context.set_trailing_metadata((*outcome.trailing, *stamp))
    return outcome.response


async def _abort(context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> NoReturn:
    origin = (FROM_ROUTER,) if outcome.here else ()
    trailing = (*outcome.trailing, *stamp, *origin)
    await context.abort(outcome.code, outcome.message, trailing)
    raise AssertionError  # abort always raises

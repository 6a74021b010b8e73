"""The data plane: assign, forward, reply, report. Requests are bytes; no tensor is decoded here."""

import asyncio
import random
import time
from collections.abc import Callable

from coalmine.errors import CoalmineError, Unavailable
from coalmine.inference import MODEL_INFER
from coalmine.limits import bytes_while_sent
from coalmine.process.answer_gate import AnswerGate
from coalmine.trace_context import HeadSampler
from coalmine_router import wire
from coalmine_router.backends.address import Address
from coalmine_router.metadata import Pair, showing
from coalmine_router.proxy import attempts
from coalmine_router.proxy.admission import Admission, TurnedAway, UnreadMessage, reason_of
from coalmine_router.proxy.caller import Caller, caller_of
from coalmine_router.proxy.choice import choose, reached
from coalmine_router.proxy.endings import ENDING, Context, end, gone, refusal, unexpected
from coalmine_router.proxy.exchange import Exchange, begin_trace
from coalmine_router.proxy.forward import Attempt, Outcome, forward
from coalmine_router.proxy.report import bodies_of, report_of
from coalmine_router.proxy.routing import NOTHING_ROUTED, BoundVariant, RoutedRoute, Routing
from coalmine_router.table import Limits

# Takes a serialised Report, and more fields of it.
TakesReport = Callable[[bytes, bytes], None]


class DataPlane:
    """Answers for what the current routing matches.

    Of a request, in order: `begun`, `matched`, `assigned`, `_answered`, `ended`, `_reply`.
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
        self.hold = AnswerGate()
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
            stamp = bound.stamp_for(wire.model_version(request))
        except CoalmineError as error:
            return await self._reply(context, refusal(error), ())
        attempt = Attempt(bound, address, b"", time.perf_counter_ns(), timeout_s)
        metadata = [*showing(caller.metadata, bound.endpoints.shown), *caller.trace()]
        outcome = await forward(attempt, f"/{method}", request, metadata)
        try:
            self._count_until_read(len(request), outcome, context, (self.admission,))
        except TurnedAway as error:
            outcome = refusal(error)
        return await self._reply(context, outcome, stamp)

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
        if name not in self.routing.by_model:  # else its route says it
            exchange.model = name
        return self.routing.of_model(name)

    def assigned(self, exchange: Exchange, routed: RoutedRoute, context: Context) -> Address:
        """Let a request in, until `let_out`, give it a variant, and return where that is called.

        Raises TurnedAway, Unavailable, and what a pin can do wrong.
        """
        exchange.timeout_s = _time_s(routed, context)
        exchange.routed = routed
        size = exchange.request_bytes
        exchange.version = routed.version_of(exchange.request)
        routed.admission.admit(size)
        try:
            self.admission.admit(size)
        except TurnedAway:
            routed.admission.release(size)
            raise
        try:
            return choose(exchange, routed)
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
            raise Unavailable(ENDING)
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
        routed.check_version(bound, routed.version_of(request))
        return bound, reached(bound), _time_s(routed, context)

    # ------------------------------------------------------------ the call, and after it

    async def _answered(
        self, exchange: Exchange, routed: RoutedRoute, address: Address, context: Context
    ) -> bytes:
        try:
            outcome = await self._outcome(exchange, routed, address)
            outcome = self._taken(exchange, routed, outcome, context)
            self.ended(exchange, outcome)
        except asyncio.CancelledError:
            self.given_up(exchange, context)
            raise
        except Exception:
            self.broken(exchange)
            raise
        finally:
            self.let_out(exchange, routed)
        return await self._reply(context, outcome, exchange.stamp)

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

    def _taken(
        self, exchange: Exchange, routed: RoutedRoute, outcome: Outcome, context: Context
    ) -> Outcome:
        """Return `outcome`; its refusal, where answers that nobody reads have filled the room."""
        admissions = routed.admission, self.admission
        try:
            self._count_until_read(exchange.request_bytes, outcome, context, admissions)
        except TurnedAway as error:
            exchange.turned_away = error.reason
            return refusal(error)
        return outcome

    def _count_until_read(
        self,
        request_bytes: int,
        outcome: Outcome,
        context: Context,
        admissions: tuple[Admission, ...],
    ) -> None:
        """Count an answer, with its request, until the caller has it. Raises TurnedAway."""
        if outcome.response:
            size = bytes_while_sent(outcome.response)
            unread = UnreadMessage(size, admissions, beside=request_bytes)
            context.add_done_callback(unread.release)  # type: ignore[arg-type]  # the stubs' fault

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Report a request that has come to its end."""
        exchange.is_reported = True
        report = report_of(exchange, outcome, time.perf_counter_ns())
        self._report(report, bodies_of(exchange, outcome) if exchange.copies.are_any else b"")

    def given_up(self, exchange: Exchange, context: Context) -> None:
        """Report a request whose caller stopped waiting, if it has not been."""
        self._broken_off(exchange, gone(exchange, context))

    def broken(self, exchange: Exchange) -> None:
        """Report a request that an error of ours has ended, if it has not been.

        What went wrong is told at the edge; that it did must not be missing from the counts.
        """
        self._broken_off(exchange, unexpected())

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


def _time_s(routed: RoutedRoute, context: Context) -> float:
    """Return the time that a request has: what the caller left of its own, else the route's."""
    remaining = context.time_remaining()
    return routed.timeout_s if remaining is None else remaining

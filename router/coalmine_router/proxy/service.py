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
from coalmine_router.metadata import Pair, with_token
from coalmine_router.proxy import attempts
from coalmine_router.proxy.admission import Admission, TurnedAway, UnreadMessage, turned_away_reason
from coalmine_router.proxy.caller import Caller, caller_of
from coalmine_router.proxy.choice import assign_variant, pick_address
from coalmine_router.proxy.endings import ENDING, Context, caller_gone, end, internal_error, refusal
from coalmine_router.proxy.exchange import Exchange, begin_trace
from coalmine_router.proxy.forward import Attempt, Outcome, forward
from coalmine_router.proxy.report import bodies_of, report_of
from coalmine_router.proxy.routing import NOTHING_ROUTED, BoundVariant, RoutedRoute, Routing
from coalmine_router.table import Limits

# Takes a serialised Report, and more fields of it.
TakesReport = Callable[[bytes, bytes], None]


class DataPlane:
    """Answers the calls that the current routing matches.

    Per request: `begin_exchange`, `match_route`, `place_request`, `_answer`, `report`, `_reply`.
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
        self.gate = AnswerGate()
        # Set when the process begins to end.
        self.ending = asyncio.Event()
        self._report = report
        self._sampler = sampler
        self._rng = rng
        self._drop_authorization = drop_authorization

    def route_by(self, routing: Routing) -> None:
        """Route new requests by `routing`."""
        self.routing = routing
        self.admission.limits = routing.limits

    def refuse(self) -> None:
        """Refuse every new request: the process is ending."""
        self.ending.set()

    async def infer(self, request: bytes, context: Context) -> bytes:
        """Answer a ModelInfer by the variant that it is assigned."""
        exchange = self.begin_exchange(MODEL_INFER, request, context)
        try:
            routed = self.match_route(exchange, request)
            address = self.place_request(exchange, routed, context)
        except CoalmineError as error:
            return await self.turn_away(exchange, error, context)
        return await self._answer(exchange, routed, address, context)

    async def call(
        self, routed: RoutedRoute, method: str, request: bytes, context: Context
    ) -> bytes:
        """Answer a unary call of another service, whose method a route matches."""
        exchange = self.begin_exchange(method, request, context)
        try:
            self._require_serving()
            address = self.place_request(exchange, routed, context)
        except CoalmineError as error:
            return await self.turn_away(exchange, error, context)
        return await self._answer(exchange, routed, address, context)

    async def ask(self, method: str, request: bytes, context: Context) -> bytes:
        """Pass a question about a model to the pinned variant, else to stable."""
        caller = self._caller_of(context)
        try:
            bound, address, timeout_s = self._pick_for_question(caller, request, context)
            stamp = bound.stamp_for(wire.model_version(request))
        except CoalmineError as error:
            return await self._reply(context, refusal(error), ())
        attempt = Attempt(bound, address, b"", time.perf_counter_ns(), timeout_s)
        metadata = [*with_token(caller.metadata, bound.endpoints.token_metadata), *caller.trace()]
        outcome = await forward(attempt, f"/{method}", request, metadata)
        try:
            self._count_until_read(len(request), outcome, context, (self.admission,))
        except TurnedAway as error:
            outcome = refusal(error)
        return await self._reply(context, outcome, stamp)

    def knows_model(self, request: bytes) -> bool:
        """Return whether a route matches the model that a request names. Raises InvalidRequest."""
        routing = self.routing
        return routing.default is not None or wire.model_name(request) in routing.by_model

    # ------------------------------------------------------------ before the call

    def begin_exchange(self, method: str, request: bytes, context: Context) -> Exchange:
        """Begin the exchange of a request that has just come."""
        wall_ns, began_ns = time.time_ns(), time.perf_counter_ns()
        caller = self._caller_of(context)
        trace = begin_trace(caller, self._sampler, self._rng)
        return Exchange(method, request, caller, trace, wall_ns=wall_ns, began_ns=began_ns)

    def match_route(self, exchange: Exchange, request: bytes) -> RoutedRoute:
        """Return the route of the model that a request names. Raises NotFound, InvalidRequest."""
        self._require_serving()
        name = wire.model_name(request)
        if name not in self.routing.by_model:  # otherwise its route has the model
            exchange.model = name
        return self.routing.route_of_model(name)

    def place_request(self, exchange: Exchange, routed: RoutedRoute, context: Context) -> Address:
        """Admit a request until `release`, assign a variant, and return the address to call.

        Raises TurnedAway, Unavailable, and the errors of a wrong pin.
        """
        exchange.timeout_s = _timeout_s(routed, context)
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
            return assign_variant(exchange, routed)
        except BaseException:
            self.release(exchange, routed)
            raise

    def release(self, exchange: Exchange, routed: RoutedRoute) -> None:
        """Stop counting a request: it has ended."""
        routed.admission.release(exchange.request_bytes)
        self.admission.release(exchange.request_bytes)

    def _caller_of(self, context: Context) -> Caller:
        return caller_of(
            context.invocation_metadata() or (), drop_authorization=self._drop_authorization
        )

    def _require_serving(self) -> None:
        if self.ending.is_set():
            raise Unavailable(ENDING)
        if self.routing is NOTHING_ROUTED:
            raise Unavailable("the router has no route table yet")

    def _pick_for_question(
        self, caller: Caller, request: bytes, context: Context
    ) -> tuple[BoundVariant, Address, float]:
        self._require_serving()
        routed = self.routing.route_of_model(wire.model_name(request))
        bound = routed.stable
        if caller.pin is not None:
            bound = routed.variants[routed.assigner.pinned_variant(caller.pin).name]
        routed.check_version(bound, routed.version_of(request))
        return bound, pick_address(bound), _timeout_s(routed, context)

    # ------------------------------------------------------------ the call, and after it

    async def _answer(
        self, exchange: Exchange, routed: RoutedRoute, address: Address, context: Context
    ) -> bytes:
        try:
            outcome = await self._make_calls(exchange, routed, address)
            outcome = self._count_answer(exchange, routed, outcome, context)
            self.report(exchange, outcome)
        except asyncio.CancelledError:
            self.report_given_up(exchange, context)
            raise
        except Exception:
            self.report_broken(exchange)
            raise
        finally:
            self.release(exchange, routed)
        return await self._reply(context, outcome, exchange.stamp)

    async def _make_calls(
        self, exchange: Exchange, routed: RoutedRoute, address: Address
    ) -> Outcome:
        method, request = f"/{exchange.method}", exchange.request
        call = attempts.start_first_attempt(exchange, routed, address)
        outcome = await forward(call, method, request, exchange.metadata_of(call))
        if outcome.is_ok:
            return outcome
        again = attempts.start_second_attempt(exchange, routed, call, outcome, self._rng)
        if again is None:
            return outcome
        return await forward(again, method, request, exchange.metadata_of(again))

    def _count_answer(
        self, exchange: Exchange, routed: RoutedRoute, outcome: Outcome, context: Context
    ) -> Outcome:
        """Return `outcome`, or its refusal where unread answers have reached the limit."""
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

    def report(self, exchange: Exchange, outcome: Outcome) -> None:
        """Report a request that has ended."""
        exchange.is_reported = True
        report = report_of(exchange, outcome, time.perf_counter_ns())
        self._report(report, bodies_of(exchange, outcome) if exchange.copies.has_any else b"")

    def report_given_up(self, exchange: Exchange, context: Context) -> None:
        """Report a request whose caller stopped waiting, unless it was reported before."""
        self._report_unfinished(exchange, caller_gone(exchange, context))

    def report_broken(self, exchange: Exchange) -> None:
        """Report a request that failed by an error of ours, unless it was reported before.

        The edge logs the error. The counts must have the request too.
        """
        self._report_unfinished(exchange, internal_error())

    def _report_unfinished(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.is_reported:
            return
        if exchange.attempts and not exchange.attempts[-1].ended_ns:
            exchange.attempts[-1].end(outcome)
        self.report(exchange, outcome)

    async def turn_away(self, exchange: Exchange, error: CoalmineError, context: Context) -> bytes:
        """Refuse a request in the router's own name."""
        exchange.turned_away = turned_away_reason(error)
        outcome = refusal(error)
        self.report(exchange, outcome)
        return await self._reply(context, outcome, ())

    async def _reply(self, context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> bytes:
        """Return the answer to the caller, or end the call with its error, through the gate."""
        if self.gate.is_on:
            await self.gate.wait(context.time_remaining())
        if outcome.initial:
            await context.send_initial_metadata(tuple(outcome.initial))
        if not outcome.is_ok:
            await end(context, outcome, stamp)
        context.set_trailing_metadata((*outcome.trailing, *stamp) if outcome.trailing else stamp)
        return outcome.response


def _timeout_s(routed: RoutedRoute, context: Context) -> float:
    """Return the seconds for a request: the caller's deadline, else the route's timeout."""
    remaining = context.time_remaining()
    return routed.timeout_s if remaining is None else remaining

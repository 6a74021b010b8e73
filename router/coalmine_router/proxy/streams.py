"""Routes ModelStreamInfer: the first request chooses the variant, and the others follow it."""

import asyncio
import contextlib
import time

import grpc

from coalmine.errors import CoalmineError, InvalidRequest, NotFound, Unavailable
from coalmine.inference import MODEL_STREAM_INFER as METHOD
from coalmine.limits import bytes_while_sent
from coalmine.listener.call_cancellation import cancel_call, is_task_cancelled, shield_operation
from coalmine_router import wire
from coalmine_router.backends.address import Address
from coalmine_router.metadata import answer_metadata
from coalmine_router.proxy.admission import Admission, TurnedAway, UnreadMessage, turned_away_reason
from coalmine_router.proxy.endings import ENDING, Context, end, refusal
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.forward import (
    TIMEOUT_S_MAX,
    Attempt,
    Outcome,
    failure_outcome,
    metadata_refusal,
    removed_outcome,
    unsendable_outcome,
)
from coalmine_router.proxy.service import DataPlane

RawStream = grpc.aio.StreamStreamCall[bytes, bytes]


class StreamService:
    """Passes on streams for the routes of a data plane. Limits count each stream as one request."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        # Counts the streams that have sent nothing yet. No route counts these.
        self._silent = Admission("streams that have sent nothing", plane.admission.limits)

    async def serve(self, _requests: object, context: Context) -> None:
        """Pass a stream's messages both ways until either side ends it."""
        plane = self._plane
        try:
            first = await self._read_first_request(context)
        except TurnedAway as error:
            await end(context, refusal(error), ())
        if not isinstance(first, bytes):
            if plane.ending.is_set():
                await end(context, refusal(Unavailable(ENDING)), ())
            return  # the caller sent no request
        exchange = plane.begin_exchange(METHOD, first, context)
        try:
            routed = plane.match_route(exchange, first)
            address = plane.place_request(exchange, routed, context)
        except CoalmineError as error:
            await plane.turn_away(exchange, error, context)
            return
        try:
            await self._relay_stream(exchange, address, context)
        except asyncio.CancelledError:
            plane.report_given_up(exchange, context)
            raise
        except Exception:
            plane.report_broken(exchange)
            raise
        finally:
            plane.release(exchange, routed)

    async def _read_first_request(self, context: Context) -> object:
        """Return the first request; no bytes where there is none, or the process is ending.

        Raises TurnedAway where too many streams have sent none.
        """
        self._silent.limits = self._plane.admission.limits
        self._silent.admit(0)
        try:
            async with asyncio.TaskGroup() as tasks:
                over = tasks.create_task(self._plane.ending.wait())
                first = await _read_request(context, over)
                over.cancel()
        finally:
            self._silent.release(0)
        return first

    async def _relay_stream(self, exchange: Exchange, address: Address, context: Context) -> None:
        bound = exchange.bound_variant()
        # The route's timeout is for one answer. A stream lasts as long as its caller wants.
        remaining = context.time_remaining()
        timeout_s = float("inf") if remaining is None else remaining
        now_ns = time.perf_counter_ns()
        attempt = Attempt(bound, address, exchange.trace.call_span_id, now_ns, timeout_s)
        exchange.add_attempt(attempt)
        address.outstanding += 1
        try:
            outcome = await _RoutedStream(exchange, attempt, context, self._plane).run(remaining)
        finally:
            address.outstanding -= 1
        attempt.end(outcome)
        self._plane.report(exchange, outcome)
        if not outcome.is_ok:
            await end(context, outcome, exchange.stamp)
        context.set_trailing_metadata((*outcome.trailing, *exchange.stamp))


class _RoutedStream:
    """One stream, while both sides talk."""

    def __init__(
        self, exchange: Exchange, attempt: Attempt, context: Context, plane: DataPlane
    ) -> None:
        assert exchange.routed is not None  # noqa: S101 - it was matched before
        self._exchange = exchange
        self._routed = exchange.routed
        self._attempt = attempt
        self._context = context
        self._ending = plane.ending
        self._admissions = self._routed.admission, plane.admission
        self._was_cut = False
        self._has_asked = False
        # The error of a message that ends the stream, after the answers to those before it.
        self._refusal: CoalmineError | None = None

    async def run(self, timeout_s: float | None) -> Outcome:
        """Pass messages both ways until the end, and return the outcome."""
        metadata = self._exchange.metadata_of(self._attempt)
        refused = unsendable_outcome(metadata)
        if refused is not None:
            return refused
        call = self._attempt.address.stream_call(f"/{METHOD}")(
            timeout=None if timeout_s is None else min(timeout_s, TIMEOUT_S_MAX), metadata=metadata
        )
        try:
            return await self._pass_both_ways(call)
        finally:
            cancel_call(call)

    async def _pass_both_ways(self, call: RawStream) -> Outcome:
        outcome: Outcome | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                over = tasks.create_task(self._ending.wait())
                up = tasks.create_task(self._pass_requests(call, over))
                outcome = await self._pass_answers(call)
                up.cancel()
                over.cancel()
        except* TurnedAway as wrong:
            refused = wrong.exceptions[0]
            assert isinstance(refused, CoalmineError)  # noqa: S101 - no task raises a group
            self._refusal = refused
        except* grpc.aio.AioRpcError as failed:
            error = failed.exceptions[0]
            assert isinstance(error, grpc.aio.AioRpcError)  # noqa: S101 - no task raises a group
            outcome = failure_outcome(self._attempt, error)
        except* grpc.aio.InternalError:
            # The caller is gone, so there is no receiver for messages or a status.
            raise asyncio.CancelledError from None
        if self._refusal is not None:
            self._exchange.turned_away = turned_away_reason(self._refusal)
            return refusal(self._refusal)
        return outcome or await self._final_outcome(call)

    async def _final_outcome(self, call: RawStream) -> Outcome:
        trailing = answer_metadata(await call.trailing_metadata())
        refused = metadata_refusal(self._attempt, trailing)
        if refused is not None:
            return refused
        if self._was_cut:
            return Outcome(grpc.StatusCode.UNAVAILABLE, ENDING, b"", (), trailing, here=True)
        return Outcome(grpc.StatusCode.OK, "", b"", (), trailing)

    # ------------------------------------------------------------ from the caller

    async def _pass_requests(self, call: RawStream, over: "asyncio.Task[bool]") -> None:
        """Pass on requests. gRPC holds the caller back while the backend reads none."""
        try:
            await self._write_requests(call, over)
        except (InvalidRequest, NotFound, TurnedAway) as error:
            self._refusal = error
            await self._wait_for_last_answers(call)

    async def _write_requests(self, call: RawStream, over: "asyncio.Task[bool]") -> None:
        request: object = self._exchange.request
        # If the call ends before its time, `_pass_answers` gets the error.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while isinstance(request, bytes):
                with self._count_unread(request):
                    await call.write(self._bind_to_route(request))
                self._has_asked = True
                request = await _read_request(self._context, over)
                # The requests sent by then get their answers.
                self._was_cut = request is None
            await call.done_writing()

    async def _wait_for_last_answers(self, call: RawStream) -> None:
        """Let the backend answer the requests sent so far, for the route's timeout at most.

        `_pass_answers` passes the answers on. The stream cancels this after the last.
        """
        if self._has_asked:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.done_writing()
            await asyncio.sleep(self._routed.route.timeout_ns / 1e9)
        call.cancel()

    def _bind_to_route(self, request: bytes) -> bytes:
        routed = self._routed
        name = wire.model_name(request)
        model = routed.route.match.model or self._exchange.model
        if name != model:
            raise InvalidRequest(
                f"a stream stays with the model of its first request, '{model[:128]}': "
                f"open another one for '{name[:128]}'"
            )
        self._exchange.version = routed.version_of(request) or self._exchange.version
        routed.check_version(self._attempt.bound, self._exchange.version)
        return request + self._attempt.bound.override

    # ------------------------------------------------------------ from the backend

    async def _pass_answers(self, call: RawStream) -> Outcome | None:
        """Pass back answers until the last. Return the outcome if the router cut it off."""
        try:
            initial = answer_metadata(await call.initial_metadata())
            refused = metadata_refusal(self._attempt, initial)
            if refused is not None:
                return refused
            if initial:
                await self._context.send_initial_metadata(tuple(initial))
            while isinstance(answer := await shield_operation(call.read()), bytes):
                await self._pass_answer(answer)
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            return removed_outcome(self._attempt)
        return None

    async def _pass_answer(self, answer: bytes) -> None:
        """Write an answer. It counts until gRPC has written it, also after the stream has ended.

        Raises TurnedAway where unread answers have reached the limit.
        """
        unread = self._count_unread(answer)

        def release_unread(written: "asyncio.Task[None]") -> None:
            unread.release()
            if not written.cancelled():
                written.exception()  # no other task awaits it once the stream has ended

        # Not in a task group: gRPC goes on writing when no task waits for it.
        writing = asyncio.ensure_future(self._context.write(answer))
        writing.add_done_callback(release_unread)
        await asyncio.shield(writing)

    def _count_unread(self, message: bytes) -> UnreadMessage:
        return UnreadMessage(bytes_while_sent(message), self._admissions)


async def _read_request(context: Context, over: "asyncio.Task[bool]") -> object:
    """Return the caller's next message, or gRPC's mark of the end; None once `over` is done."""
    reading: asyncio.Future[object] = shield_operation(context.read())
    try:
        await asyncio.wait((reading, over), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()

"""Inference calls from their first byte to their last: bounded, counted, traced, logged."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, ModelFailed, Overloaded
from coalmine.limits import bytes_while_sent
from coalmine.status import Context
from coalmine.trace_context import trace_ids
from coalmine_server.batching.request_queue import Pending
from coalmine_server.config import Bounds
from coalmine_server.registry import Version
from coalmine_server.spans import Recorder, RequestRecord, Traced
from coalmine_server.wire.requests import InferRequest

_log = structlog.get_logger(__name__)

_AROUND_BYTES: Final = 256  # what a stream puts around an answer


@dataclass(slots=True)
class Call:
    """What is known of one call so far; monotonic nanoseconds."""

    request: InferRequest
    context: Context
    method: str
    begun_ns: int
    answered: Callable[[str, int], None]
    deadline_ns: int | None
    traced: Traced | None = None
    version: Version | None = None
    pending: Pending | None = None

    def is_for(self, version: Version) -> None:
        """Count the call to a version from now on."""
        self.version, self.answered = version, version.metrics.answered

    def lasts_no_longer_than(self, timeout_ns: int | None) -> int | None:
        """Return the deadline, which the request's own time-out may only shorten."""
        if timeout_ns is not None:
            own_ns = self.begun_ns + timeout_ns
            known_ns = self.deadline_ns
            self.deadline_ns = own_ns if known_ns is None else min(known_ns, own_ns)
        return self.deadline_ns


class Calls:
    """The account of all calls of a process, and the bounds on those in flight."""

    def __init__(
        self,
        *,
        clock: Clock,
        spans: Recorder,
        answered_unknown: Callable[[str, int], None],
        bounds: Bounds,
    ) -> None:
        self._clock = clock
        self._spans = spans
        self._answered_unknown = answered_unknown
        self._bounds = bounds
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._unread_bytes = 0

    def begin(self, request: InferRequest, context: Context, method: str) -> Call:
        """Return a new call, in flight until `end`."""
        now_ns = self._clock.monotonic_ns()
        remaining_s = context.time_remaining()
        deadline_ns = None if remaining_s is None else now_ns + int(remaining_s * 1e9)
        traced = None
        if self._spans.is_on:
            traced = self._spans.begin(context.invocation_metadata() or ())
        self.in_flight += 1
        self.in_flight_bytes += request.size
        return Call(request, context, method, now_ns, self._answered_unknown, deadline_ns, traced)

    def check_bounds(self) -> None:
        """Raise Overloaded where more is in flight than may be."""
        most = self._bounds
        if self.in_flight > most.calls_in_flight:
            raise Overloaded(f"{most.calls_in_flight} calls are in flight, the most there may be")
        self._check_bytes(self.in_flight_bytes)

    def _check_bytes(self, size: int) -> None:
        most = self._bounds.bytes_in_flight
        if size > most:
            raise Overloaded(
                f"requests and unread answers of {most} bytes are in flight, the most there may be"
            )

    def hold_bytes(self, size: int) -> None:
        """Count bytes more, or fewer, that wait to be read: they are in flight like requests."""
        self._unread_bytes += size
        self.in_flight_bytes += size

    def count_until_read(self, request: InferRequest, answer: bytes, context: Context) -> bytes:
        """Return `answer`, counted until its caller has it or is gone, with what it answers."""
        size = request.size + bytes_while_sent(answer)
        self.hold_bytes(size)
        context.add_done_callback(lambda _: self.hold_bytes(-size))  # type: ignore[arg-type]  # the stubs' fault
        return answer

    def check_answer(self, version: Version, answer: bytes) -> bytes:
        """Return what gRPC lets through. Raises Overloaded for more: gRPC would end a stream.

        So it does where the answer doesn't fit beside others that nobody has read. How large one
        is, nobody knows before: one that no other is beside always fits.
        """
        if self._unread_bytes:
            self._check_bytes(self.in_flight_bytes + bytes_while_sent(answer))
        most = self._bounds.message_bytes - _AROUND_BYTES
        if len(answer) > most:
            raise Overloaded(
                f"{version.signature.label}: the answer takes {len(answer)} bytes, "
                f"at most {most} can be sent"
            )
        return answer

    def end(self, call: Call, error: BaseException | None = None) -> None:
        """Count, log and trace a call that is over; `error` is what it is answered with."""
        self.in_flight -= 1
        self.in_flight_bytes -= call.request.size
        now_ns = self._clock.monotonic_ns()
        code, message = ("OK", "") if error is None else _told(error, call, now_ns)
        call.answered(code, now_ns - call.begun_ns)
        if isinstance(error, ModelFailed):
            _log_failed(error, call)
        if call.traced is not None:
            self._spans.record(self._exchange(call, call.traced, code, message))

    def _exchange(self, call: Call, traced: Traced, code: str, message: str) -> RequestRecord:
        # Durations come from the monotonic clock; the wall clock may jump, so it is read once.
        ended_ns = self._clock.wall_ns()
        offset_ns = ended_ns - self._clock.monotonic_ns()
        asked = call.request.message
        exchange = RequestRecord(
            traced=traced,
            begun_ns=call.begun_ns + offset_ns,
            method=call.method,
            ended_ns=ended_ns,
            model=asked.model_name,
            version=asked.model_version,
            request_id=asked.id,
            code=code,
            message=message,
        )
        if call.version is not None:
            exchange.version = str(call.version.file.version)
        if call.pending is not None:
            _add_times(exchange, call.pending, offset_ns)
        return exchange


def _told(error: BaseException, call: Call, now_ns: int) -> tuple[str, str]:
    """Return the code and text that the caller gets for `error`."""
    if isinstance(error, CoalmineError):
        return error.code, str(error)
    if isinstance(error, asyncio.CancelledError):
        # gRPC cancels a call whose deadline has passed just as it does one that was given up.
        late = call.deadline_ns is not None and now_ns >= call.deadline_ns
        return ("DEADLINE_EXCEEDED", "the deadline passed") if late else ("CANCELLED", "")
    return "INTERNAL", type(error).__name__


def _add_times(exchange: RequestRecord, pending: Pending, offset_ns: int) -> None:
    exchange.queued_ns = pending.arrived_ns + offset_ns
    batch = pending.batch
    if batch is None:
        return
    exchange.batch_rows, exchange.batch = batch.rows, batch.traced
    exchange.started_ns = batch.started_ns + offset_ns
    if batch.ended_ns:
        exchange.computed_ns = batch.ended_ns + offset_ns


def _log_failed(error: ModelFailed, call: Call) -> None:
    traced = call.traced
    ids = traced.ids() if traced else trace_ids(call.context.invocation_metadata() or ())
    _log.warning("model_failed", reason=str(error), exc_info=error.__cause__, **ids)

"""Inference calls from their begin to their end: bounded, counted, traced, logged."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, ModelFailed, Overloaded
from coalmine.limits import bytes_while_sent
from coalmine.trace_context import trace_ids
from coalmine_server.batching.request_queue import PendingRequest
from coalmine_server.config import Bounds
from coalmine_server.registry import Version
from coalmine_server.spans import Metadata, RequestRecord, RequestRecorder, TracedRequest
from coalmine_server.wire.requests import InferRequest

_log = structlog.get_logger(__name__)

_AROUND_BYTES: Final = 256  # what a stream puts around an answer


class CallContext(Protocol):
    """The other end of a call, as the front that took the call knows it."""

    def metadata(self) -> Metadata:
        """Return the pairs that came beside the request, such as its traceparent."""
        ...

    def remaining_s(self) -> float | None:
        """Return how long the caller still waits; None: for ever."""
        ...

    def call_when_read(self, callback: Callable[[], None]) -> None:
        """Call back once the caller has its answer, or is gone."""
        ...


@dataclass(slots=True)
class Call:
    """What is known of one call so far; monotonic nanoseconds."""

    request: InferRequest
    context: CallContext
    method: str
    begun_ns: int
    count_answer: Callable[[str, int], None]
    deadline_ns: int | None
    traced: TracedRequest | None = None
    version: Version | None = None
    pending: PendingRequest | None = None

    def assign_version(self, version: Version) -> None:
        """Count the call to a version from now on."""
        self.version, self.count_answer = version, version.statistics.count_answer

    def shorten_deadline(self, timeout_ns: int | None) -> None:
        """Let the request's own time-out bring the deadline forward, never back."""
        if timeout_ns is not None:
            own_ns = self.begun_ns + timeout_ns
            known_ns = self.deadline_ns
            self.deadline_ns = own_ns if known_ns is None else min(known_ns, own_ns)


class CallAccount:
    """The account of all calls of a process, and the bounds on those in flight."""

    def __init__(
        self,
        *,
        clock: Clock,
        spans: RequestRecorder,
        count_unknown: Callable[[str, int], None],
        bounds: Bounds,
    ) -> None:
        self._clock = clock
        self._spans = spans
        self._count_unknown = count_unknown
        self._bounds = bounds
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._unread_bytes = 0

    def begin(self, request: InferRequest, context: CallContext, method: str) -> Call:
        """Take a call, which is in flight until `end`, and return what is known of it."""
        now_ns = self._clock.monotonic_ns()
        remaining_s = context.remaining_s()
        deadline_ns = None if remaining_s is None else now_ns + int(remaining_s * 1e9)
        traced = None
        if self._spans.is_on:
            traced = self._spans.begin(context.metadata())
        self.in_flight += 1
        self.in_flight_bytes += request.size
        return Call(request, context, method, now_ns, self._count_unknown, deadline_ns, traced)

    def check_bounds(self) -> None:
        """Raise Overloaded where more is in flight than may be."""
        most = self._bounds
        if self.in_flight > most.calls_in_flight:
            raise Overloaded(f"{most.calls_in_flight} calls are in flight, the most there may be")
        self._check_bytes_in_flight(self.in_flight_bytes)

    def _check_bytes_in_flight(self, size: int) -> None:
        most = self._bounds.bytes_in_flight
        if size > most:
            raise Overloaded(
                f"requests and unread answers of {most} bytes are in flight, the most there may be"
            )

    def track_bytes(self, size: int) -> None:
        """Count bytes more, or fewer, of answers that wait to be read: they are in flight too."""
        self._unread_bytes += size
        self.in_flight_bytes += size

    def count_until_read(self, request: InferRequest, answer: bytes, context: CallContext) -> None:
        """Count an answer and its request until the caller has read the answer or is gone."""
        size = request.size + bytes_while_sent(answer)
        self.track_bytes(size)
        context.call_when_read(lambda: self.track_bytes(-size))

    def check_answer_size(self, version: Version, answer: bytes) -> None:
        """Raise Overloaded for an answer over the limit of a message: gRPC would end a stream.

        The same holds where the answer doesn't fit beside others that nobody has read. Its size is
        unknown before it is there, so an answer without others beside it always fits.
        """
        if self._unread_bytes:
            self._check_bytes_in_flight(self.in_flight_bytes + bytes_while_sent(answer))
        most = self._bounds.message_bytes - _AROUND_BYTES
        if len(answer) > most:
            raise Overloaded(
                f"{version.signature.label}: the answer takes {len(answer)} bytes, "
                f"at most {most} can be sent"
            )

    def end(self, call: Call, error: BaseException | None = None) -> None:
        """Count, log and trace a call that is over; `error` is what it is answered with."""
        self.in_flight -= 1
        self.in_flight_bytes -= call.request.size
        now_ns = self._clock.monotonic_ns()
        code, text = ("OK", "") if error is None else _code_and_text(error, call, now_ns)
        call.count_answer(code, now_ns - call.begun_ns)
        if isinstance(error, ModelFailed):
            _log_failure(error, call)
        if call.traced is not None:
            self._spans.record(self._record_of(call, call.traced, code, text))

    def _record_of(self, call: Call, traced: TracedRequest, code: str, text: str) -> RequestRecord:
        # Durations come from the monotonic clock; the wall clock may jump, so it is read once.
        ended_ns = self._clock.wall_ns()
        offset_ns = ended_ns - self._clock.monotonic_ns()
        message = call.request.message
        record = RequestRecord(
            traced=traced,
            begun_ns=call.begun_ns + offset_ns,
            method=call.method,
            ended_ns=ended_ns,
            model=message.model_name,
            version=message.model_version,
            request_id=message.id,
            code=code,
            message=text,
        )
        if call.version is not None:
            record.version = str(call.version.file.version)
        if call.pending is not None:
            _add_times(record, call.pending, offset_ns)
        return record


def _code_and_text(error: BaseException, call: Call, now_ns: int) -> tuple[str, str]:
    """Return the code and text that the caller gets for `error`."""
    if isinstance(error, CoalmineError):
        return error.code, str(error)
    if isinstance(error, asyncio.CancelledError):
        # gRPC cancels a call whose deadline has passed just as it does one that was given up.
        late = call.deadline_ns is not None and now_ns >= call.deadline_ns
        return ("DEADLINE_EXCEEDED", "the deadline passed") if late else ("CANCELLED", "")
    return "INTERNAL", type(error).__name__


def _add_times(record: RequestRecord, pending: PendingRequest, offset_ns: int) -> None:
    record.queued_ns = pending.arrived_ns + offset_ns
    batch = pending.batch
    if batch is None:
        return
    record.batch_rows, record.batch = batch.rows, batch.traced
    record.started_ns = batch.started_ns + offset_ns
    if batch.ended_ns:
        record.computed_ns = batch.ended_ns + offset_ns


def _log_failure(error: ModelFailed, call: Call) -> None:
    traced = call.traced
    ids = traced.log_ids() if traced else trace_ids(call.context.metadata())
    _log.warning("model_failed", reason=str(error), exc_info=error.__cause__, **ids)

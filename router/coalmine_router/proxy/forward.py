"""Makes one call to a backend, and turns its end into an outcome. Bytes stay bytes."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from coalmine.listener.call_cancellation import await_answer, is_task_cancelled
from coalmine_router.backends.address import Address
from coalmine_router.metadata import Pair, answer_metadata, unsendable_key
from coalmine_router.proxy.routing import BoundVariant
from coalmine_router.unreachable import why_unreachable
from coalmine_router.unreadable import (
    ROOM_BYTES,
    error_within_room,
    grpc_text,
    is_unreadable,
    is_untouched,
    metadata_bytes,
)

Metadata = Sequence[Pair]

# Callers may send a far later deadline. gRPC would take it for one long past.
TIMEOUT_S_MAX: Final = 366 * 24 * 3_600.0
# With less time than this, no backend may be able to answer. So a time-out charges none.
_FAIR_S: Final = 0.25
_REASON_CHARS_MAX: Final = 300
_OK: Final = grpc.StatusCode.OK
_UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
_DEADLINE: Final = grpc.StatusCode.DEADLINE_EXCEEDED
_EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED
_INTERNAL: Final = grpc.StatusCode.INTERNAL
# The caller no longer waited for the answer. That speaks neither for the backend nor against it.
_UNANSWERED: Final = (_DEADLINE, grpc.StatusCode.CANCELLED)


@dataclass(slots=True)
class Outcome:
    """The end of a call. `here`: the router made the error, not the backend."""

    code: grpc.StatusCode
    message: str
    response: bytes
    initial: Metadata
    trailing: Metadata
    here: bool = False
    # The backend said, before it closed the connection, that it never looked at the call.
    is_untouched: bool = False
    # The answer can't be read. The caller gets a limit's status; the variant is charged.
    is_unreadable: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether there is an answer."""
        return self.code is _OK

    @property
    def status_number(self) -> int:
        """The status code as it travels."""
        return _code_number(self.code)


@dataclass(slots=True)
class Attempt:
    """One call of a request: where it went, and how it ended."""

    bound: BoundVariant
    address: Address
    span_id: bytes
    began_ns: int
    timeout_s: float
    ended_ns: int = 0
    code: int = 0
    message: str = ""

    def end(self, outcome: Outcome) -> None:
        """Note the outcome and the time, and count it for the address that was called."""
        self.ended_ns = time.perf_counter_ns()
        endpoints = self.bound.endpoints
        if outcome.code is _OK:
            endpoints.note_answer(self.address)
            return
        charged = _INTERNAL if outcome.is_unreadable else outcome.code
        self.code, self.message = _code_number(charged), outcome.message
        if outcome.is_untouched:
            return
        if outcome.code is _UNAVAILABLE or outcome.is_unreadable or self._is_silence(outcome.code):
            endpoints.note_failure(self.address)
        elif outcome.code not in _UNANSWERED:
            endpoints.note_answer(self.address)

    def _is_silence(self, code: grpc.StatusCode) -> bool:
        return code is _DEADLINE and self.timeout_s >= _FAIR_S


async def forward(attempt: Attempt, method: str, request: bytes, metadata: Metadata) -> Outcome:
    """Make the call, and return its outcome. If cancelled, it cancels the call."""
    if attempt.timeout_s <= 0:
        outcome = _own_outcome(_DEADLINE, "the deadline was spent on the way")
        attempt.end(outcome)
        return outcome
    bound, address = attempt.bound, attempt.address
    call = address.unary_call(method)(
        request + bound.override if bound.override else request,
        timeout=min(attempt.timeout_s, TIMEOUT_S_MAX),
        metadata=metadata,
    )
    address.outstanding += 1
    try:
        response = await await_answer(call)
    except grpc.aio.AioRpcError as error:
        outcome = failure_outcome(attempt, error)
        attempt.end(outcome)
        if outcome.is_untouched:
            await address.wait_while_closing()
        return outcome
    except asyncio.CancelledError:
        if is_task_cancelled():
            raise
        outcome = removed_outcome(attempt)
        attempt.end(outcome)
        return outcome
    except grpc.aio.InternalError:
        refused = unsendable_outcome(metadata)
        if refused is None:
            raise
        attempt.end(refused)
        return refused
    finally:
        address.outstanding -= 1
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    outcome = _answer_outcome(attempt, response, initial, trailing)
    attempt.end(outcome)
    return outcome


def _answer_outcome(attempt: Attempt, response: object, *beside: Iterable[Pair] | None) -> Outcome:
    """Return the outcome of a call with status OK. gRPC also lets an OK without an answer pass."""
    if not isinstance(response, bytes):
        return _own_outcome(_INTERNAL, f"{_place_text(attempt)} said OK and sent no answer")
    initial, trailing = (answer_metadata(each) if each else () for each in beside)
    if initial or trailing:
        refused = metadata_refusal(attempt, initial, trailing)
        if refused is not None:
            return refused
    return Outcome(_OK, "", response, initial, trailing)


def metadata_refusal(attempt: Attempt, *beside: Metadata) -> Outcome | None:
    """Return the refusal of an answer with too much metadata for callers; else None."""
    most = max(map(metadata_bytes, beside))
    if most <= ROOM_BYTES:
        return None
    return _unreadable_outcome(
        f"{_place_text(attempt)} sent {most} bytes of metadata with its answer, over {ROOM_BYTES}"
    )


def failure_outcome(attempt: Attempt, error: grpc.aio.AioRpcError) -> Outcome:
    """Return the outcome of an error, be it the backend's or one on the way to it."""
    code, detail = error.code(), error.details() or ""
    where, said = _place_text(attempt), error.trailing_metadata() or ()
    if code is _UNAVAILABLE and "GOAWAY" in detail:
        outcome = _own_outcome(code, f"{where} was closing the connection: {detail}")
        outcome.is_untouched = is_untouched(code.name, detail, said)
        return outcome
    if code is _UNAVAILABLE and attempt.address.is_out_of_reach():
        why = why_unreachable(detail, _REASON_CHARS_MAX)
        return _own_outcome(code, f"{where} is out of reach: {why}")
    if code is grpc.StatusCode.CANCELLED:
        # The backend gave up the call. A caller's cancellation would have ended this task too.
        return _own_outcome(_UNAVAILABLE, f"{where} ended the call: {detail}")
    if code is _DEADLINE:
        if not said and _is_past_deadline(attempt):
            return _own_outcome(code, f"{where} did not answer in {attempt.timeout_s:.3g} s")
    elif own := grpc_text(code.name, detail, said):
        outcome = _own_outcome(code, f"{where}: {own.removeprefix('CLIENT: ')}")
        outcome.is_unreadable = is_unreadable(code.name, own)
        return outcome
    return _backend_outcome(code, detail, error)


def _backend_outcome(code: grpc.StatusCode, detail: str, error: grpc.aio.AioRpcError) -> Outcome:
    """Return the backend's own error, as far as a caller can take it."""
    trailing = _with_status_details(answer_metadata(error.trailing_metadata()), error)
    text, kept = error_within_room(detail, trailing)
    initial = answer_metadata(error.initial_metadata())
    return Outcome(code, text, b"", initial if metadata_bytes(initial) <= ROOM_BYTES else (), kept)


def _place_text(attempt: Attempt) -> str:
    return f"variant '{attempt.bound.variant.name}': backend '{attempt.bound.endpoints.backend}'"


def _code_number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number


def removed_outcome(attempt: Attempt) -> Outcome:
    """Return the outcome of a call whose channel was closed: its address left long ago.

    gRPC cancels such calls, and would leave the caller without any answer.
    """
    why = f"variant '{attempt.bound.variant.name}': {attempt.address.name} was taken away"
    return _own_outcome(_UNAVAILABLE, why)


def unsendable_outcome(metadata: Metadata) -> Outcome | None:
    """Return the refusal of metadata that gRPC took from the wire but won't send, or None.

    gRPC sends nothing then. Without the refusal, the caller would get no answer.
    """
    key = unsendable_key(metadata)
    if not key:
        return None
    why = f"metadata '{key}' can't be passed on: its value is not printable ASCII"
    return _own_outcome(grpc.StatusCode.INVALID_ARGUMENT, why)


def _is_past_deadline(attempt: Attempt) -> bool:
    return time.perf_counter_ns() - attempt.began_ns >= attempt.timeout_s * 0.99e9


def _with_status_details(trailing: list[Pair], error: grpc.aio.AioRpcError) -> list[Pair]:
    """Add grpc-status-details-bin, the one grpc-* key that callers read."""
    key = "grpc-status-details-bin"
    return trailing + [pair for pair in error.trailing_metadata() if pair[0] == key]


def _own_outcome(code: grpc.StatusCode, message: str) -> Outcome:
    return Outcome(code, message, b"", (), (), here=True)


def _unreadable_outcome(message: str) -> Outcome:
    outcome = _own_outcome(_EXHAUSTED, message)
    outcome.is_unreadable = True
    return outcome

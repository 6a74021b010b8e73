"""The calls of one queue, to whichever of its variant's addresses has the least to do."""

import random
from dataclasses import dataclass
from typing import Final

import grpc
import structlog

from coalmine import trace_context
from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router import wire
from coalmine_router.backends.address import Address
from coalmine_router.backends.variant_endpoints import VariantEndpoints
from coalmine_router.metadata import Pair, unsendable_key, with_token
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.copies.copy_queue import Queued
from coalmine_router.observer.observed_request import CopyCall
from coalmine_router.unreadable import grpc_text, is_unreadable, is_untouched

_log = structlog.get_logger(__name__)

_TOO_LARGE: Final = "RESOURCE_EXHAUSTED"
_INTERNAL: Final = "INTERNAL"
_MESSAGE_CHARS_MAX: Final = 2_048
_REFUSED: Final = "gRPC refuses to send the metadata that the caller sent"
# Ends of a call that speak against its address: nobody was there, or nobody who could answer.
_FAILED: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class _End:
    """What became of a call, and what that says of its address."""

    answer: ComparedAnswer
    speaks_against_it: bool = False
    # Its connection closed before anybody had looked at the call.
    is_untouched: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    """A call that was made."""

    call: CopyCall
    is_untouched: bool


class CopyCaller:
    """Calls a variant with the copies of one queue."""

    def __init__(self, *, clock: Clock, rng: random.Random, answer_bytes_max: int) -> None:
        self._clock = clock
        self._rng = rng
        self._answer_bytes_max = answer_bytes_max
        self._trouble = ""

    async def call(
        self, queued: Queued, endpoints: VariantEndpoints, timeout_ns: int
    ) -> CopyCall | None:
        """Return how a copy was answered; None where it could not be sent.

        One that a closing connection never looked at is sent once more, elsewhere if possible.
        """
        until_ns = self._clock.monotonic_ns() + timeout_ns
        address = endpoints.pick()
        if address is None:
            return None
        made = await self._make(queued, endpoints, address, timeout_ns)
        if made is not None and made.is_untouched:
            await address.wait_while_closing()
            left_ns = until_ns - self._clock.monotonic_ns()
            if left_ns > 0:
                made = await self._make(
                    queued, endpoints, endpoints.pick_other(address) or address, left_ns
                )
        return made.call if made is not None else None

    async def _make(
        self, queued: Queued, endpoints: VariantEndpoints, address: Address, timeout_ns: int
    ) -> _Made | None:
        observed, variant = queued.observed, queued.variant
        span_id = (self._rng.getrandbits(64) or 1).to_bytes(8, "big")  # all zero is no id
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        try:
            body = await address.call(
                f"/{observed.report.method}",
                observed.request + wire.override_bytes(variant.model, variant.version),
                metadata=_metadata_of(queued, endpoints, span_id),
                timeout_s=timeout_ns / 10**9,
            )
            end = _End(self._answer_of(body))
        except grpc.aio.AioRpcError as error:
            end = _end_of(error)
        except grpc.aio.InternalError:  # whose text is another one each time
            self._log_once(queued, _REFUSED)
            return None
        except (ValueError, TypeError) as error:  # metadata of a wrong type
            self._log_once(queued, str(error))
            return None
        _judge(endpoints, address, end)
        call = CopyCall(
            copy=queued.copy,
            backend=endpoints.backend,
            address=address.name,
            span_id=span_id,
            started_ns=started_ns,
            duration_ns=self._clock.monotonic_ns() - began_ns,
            answer=end.answer,
        )
        return _Made(call, end.is_untouched)

    def _answer_of(self, body: bytes | None) -> ComparedAnswer:
        if body is None:  # what gRPC makes of an OK without an answer
            return ComparedAnswer(code=_INTERNAL, message="it said OK and sent no answer")
        most = self._answer_bytes_max
        if len(body) <= most:
            return ComparedAnswer(body)
        told = f"an answer of {len(body)} bytes; of copies, at most {most} are taken"
        return ComparedAnswer(code=_TOO_LARGE, message=told)

    def _log_once(self, queued: Queued, trouble: str) -> None:
        # Thousands of copies may meet the same trouble.
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error(
                "copy_not_sent",
                route=queued.route.name,
                role=queued.copy.role,
                variant=queued.copy.variant,
                reason=trouble,
            )


def _judge(endpoints: VariantEndpoints, address: Address, end: _End) -> None:
    """Tell the endpoints, which eject an address by it."""
    if end.is_untouched:
        return
    if end.speaks_against_it:
        endpoints.note_failure(address)
    else:
        endpoints.note_answer(address)


def _end_of(error: grpc.aio.AioRpcError) -> _End:
    """Return what became of a call; what can't be read is charged to who sent it."""
    code, text, said = error.code().name, error.details() or "", error.trailing_metadata() or ()
    own = grpc_text(code, text, said)
    unreadable = is_unreadable(code, own)
    answer = ComparedAnswer(
        code=_INTERNAL if unreadable else code, message=(own or text)[:_MESSAGE_CHARS_MAX]
    )
    return _End(answer, unreadable or code in _FAILED, is_untouched(code, text, said))


def _metadata_of(queued: Queued, endpoints: VariantEndpoints, span_id: bytes) -> list[Pair]:
    """Return the metadata of a copy. Raises ValueError where gRPC would refuse it."""
    report = queued.observed.report
    # The copy's span is the parent of the backend's.
    parent = trace_context.traceparent(report.trace_id, span_id, sampled=report.sampled)
    metadata = [(each.key, _value(each)) for each in report.metadata]
    metadata.append((trace_context.TRACEPARENT, parent))
    if unsendable_key(metadata):  # gRPC itself would print three lines for each
        raise ValueError(_REFUSED)
    return with_token(metadata, endpoints.token_metadata)


def _value(pair: pb.Metadata) -> str | bytes:
    return pair.value if pair.key.endswith("-bin") else pair.value.decode(errors="replace")

"""The calls of one lane, by channels of its own: what hangs there is in nobody else's way."""

import random
from typing import Final

import grpc
import structlog

from coalmine import trace_context
from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import StartError
from coalmine_router import wire
from coalmine_router.channels import Channels, address_of
from coalmine_router.metadata import Pair, showing, unsendable_key
from coalmine_router.observer.comparison.result import Answer
from coalmine_router.observer.copies.lane import UNREACHED, Queued
from coalmine_router.observer.copies.turns import Turns
from coalmine_router.observer.exchange import CopyCall
from coalmine_router.unreadable import is_unreadable, own_text

_log = structlog.get_logger(__name__)

_TOO_LARGE: Final = "RESOURCE_EXHAUSTED"
_INTERNAL: Final = "INTERNAL"
_MESSAGE_CHARS_MAX: Final = 2_048
_REFUSED: Final = "gRPC refuses to send the metadata that the caller sent"
_Method = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class Caller:
    """Sends copies; closed by whoever made it, once no call is under way."""

    def __init__(
        self, *, channels: Channels, clock: Clock, rng: random.Random, answer_bytes_max: int
    ) -> None:
        self._channels = channels
        self._clock = clock
        self._rng = rng
        self._answer_bytes_max = answer_bytes_max
        self._turns = Turns()
        self._trouble = ""

    async def call(self, queued: Queued, timeout_ns: int) -> CopyCall | None:
        """Return how a copy was answered; None where it could not be sent."""
        span_id = (self._rng.getrandbits(64) or 1).to_bytes(8, "big")  # all zero is no id
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        target = self._turns.next(queued.backend.targets, began_ns)
        answer = await self._answer(queued, target, span_id, timeout_ns)
        if answer is None:
            return None
        ended_ns = self._clock.monotonic_ns()
        self._told(target, answer.code, ended_ns)
        return CopyCall(
            copy=queued.copy,
            backend=queued.backend.name,
            address=address_of(target),
            span_id=span_id,
            started_ns=started_ns,
            duration_ns=ended_ns - began_ns,
            answer=answer,
        )

    async def close(self) -> None:
        """Close the channels."""
        await self._channels.close()

    async def _answer(
        self, queued: Queued, target: str, span_id: bytes, timeout_ns: int
    ) -> Answer | None:
        override = wire.override(queued.variant.model, queued.variant.version)
        report = queued.exchange.report
        try:
            channel = self._channels.channel(queued.backend, target)
            method: _Method = channel.unary_unary(f"/{report.method}")
            body = await method(
                queued.exchange.request + override,
                metadata=self._metadata(queued, span_id),
                timeout=timeout_ns / 10**9,
            )
        except grpc.aio.AioRpcError as error:
            return _failed(error)
        except grpc.aio.InternalError:  # whose text is another one each time
            self._note(queued, _REFUSED)
            return None
        except (ValueError, TypeError, grpc.aio.UsageError, StartError) as error:
            # Metadata of a wrong type, a channel that was closed, files that are wrong.
            self._note(queued, str(error))
            return None
        return self._bounded(body)

    def _metadata(self, queued: Queued, span_id: bytes) -> list[Pair]:
        """Return what the copy is sent with. Raises ValueError where gRPC would refuse it."""
        metadata = _metadata(queued.exchange.report, span_id)
        if unsendable_key(metadata):  # gRPC itself would print three lines for each
            raise ValueError(_REFUSED)
        return showing(metadata, self._channels.shown(queued.backend))

    def _bounded(self, body: bytes | None) -> Answer:
        if body is None:  # what gRPC makes of an OK without an answer
            return Answer(code=_INTERNAL, message="it said OK and sent no answer")
        most = self._answer_bytes_max
        if len(body) <= most:
            return Answer(body)
        told = f"an answer of {len(body)} bytes; of copies, at most {most} are taken"
        return Answer(code=_TOO_LARGE, message=told)

    def _told(self, target: str, code: str, now_ns: int) -> None:
        if code in UNREACHED:
            self._turns.missed(target, now_ns)
        else:
            self._turns.reached(target)

    def _note(self, queued: Queued, trouble: str) -> None:
        # Thousands of copies may meet the same trouble: it is told once.
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error(
                "copy_not_sent",
                route=queued.route.name,
                role=queued.copy.role,
                variant=queued.copy.variant,
                reason=trouble,
            )


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    """Return what became of a call; what can't be read is charged to who sent it."""
    code, text = error.code().name, error.details() or ""
    own = own_text(code, text, error.trailing_metadata() or ())
    charged = _INTERNAL if is_unreadable(code, own) else code
    return Answer(code=charged, message=(own or text)[:_MESSAGE_CHARS_MAX])


def _metadata(report: pb.Report, span_id: bytes) -> list[Pair]:
    """Return what the caller sent, with the copy's span as the parent of the backend's."""
    parent = trace_context.header(report.trace_id, span_id, sampled=report.sampled)
    own: list[Pair] = [(trace_context.TRACEPARENT, parent)]
    if report.tracestate:
        own.append((trace_context.TRACESTATE, report.tracestate))
    passed = [(each.key, _value(each)) for each in report.metadata]
    return [*passed, *own]


def _value(pair: pb.Metadata) -> str | bytes:
    return pair.value if pair.key.endswith("-bin") else pair.value.decode(errors="replace")

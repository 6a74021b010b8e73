"""One address of a backend: its channel, its calls, and its state."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import grpc
import structlog

from coalmine.listener.call_cancellation import await_answer, is_task_cancelled
from coalmine_router.backends.address_state import AddressState
from coalmine_router.backends.targets import Endpoint
from coalmine_router.metadata import Pair

_log = structlog.get_logger(__name__)

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
RawStreamCall = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
Call = TypeVar("Call", RawCall, RawStreamCall)

# gRPC still gives calls to a connection for a moment after it has heard that this one closes.
_CLOSING_S: Final = 0.02
# A renewed connection is back by then, and needs no line in the log.
_RENEWED_S: Final = 1.0
# Callers name the methods of other services. They can name any number.
_METHODS_MAX: Final = 256


class Address:
    """A connected address; the variants of its backend share it.

    `outstanding` counts its calls in flight. The choice between addresses goes by it. The address
    calls `on_change` when its state or its models change.
    """

    __slots__ = (
        "_on_change",
        "_on_doubt",
        "_streams",
        "_unaries",
        "_unavailable_timer",
        "backend",
        "channel",
        "endpoint",
        "name",
        "outstanding",
        "state",
        "unserved",
    )

    def __init__(
        self,
        backend: str,
        endpoint: Endpoint,
        channel: grpc.aio.Channel,
        on_change: Callable[[], None],
    ) -> None:
        self.backend = backend
        self.endpoint = endpoint
        self.name = endpoint.name
        self.channel = channel
        self.outstanding = 0
        self.state = AddressState()
        # The models that the address reports as not served.
        self.unserved: frozenset[str] = frozenset()
        self._on_change = on_change
        self._on_doubt: Callable[[], None] | None = None
        # Logs that the address is unavailable, if it still is by then.
        self._unavailable_timer: asyncio.TimerHandle | None = None
        self._unaries: dict[str, RawCall] = {}
        self._streams: dict[str, RawStreamCall] = {}

    def unary_call(self, method: str) -> RawCall:
        """Return the callable of `method`, such as /package.Service/Method. Bytes stay bytes."""
        call = self._unaries.get(method)
        if call is None:
            call = self.channel.unary_unary(method)
            _remember_call(self._unaries, method, call)
        return call

    def stream_call(self, method: str) -> RawStreamCall:
        """Return the callable of `method` with streams both ways. Bytes stay bytes."""
        call = self._streams.get(method)
        if call is None:
            call = self.channel.stream_stream(method)
            _remember_call(self._streams, method, call)
        return call

    async def call(
        self, method: str, request: bytes, *, metadata: Sequence[Pair] = (), timeout_s: float
    ) -> bytes | None:
        """Return the answer to one call. gRPC returns None for an OK without an answer.

        The hot path doesn't use this method. Raises AioRpcError, also where the channel closes
        under the call. Raises gRPC's own error for metadata that gRPC won't send.
        """
        call = self.unary_call(method)
        self.outstanding += 1
        try:
            answer: bytes | None = await await_answer(
                call(request, metadata=metadata, timeout=timeout_s)
            )
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            raise self._gone_error() from None
        except grpc.aio.UsageError:
            raise self._gone_error() from None
        finally:
            self.outstanding -= 1
        return answer

    def _gone_error(self) -> grpc.aio.AioRpcError:
        nothing = grpc.aio.Metadata()
        why = f"{self.name} was taken away"
        return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, why)

    async def wait_while_closing(self) -> None:
        """Return once new calls no longer meet the closing connection, or after a moment."""
        with contextlib.suppress(TimeoutError, grpc.aio.UsageError):  # it may be closed
            async with asyncio.timeout(_CLOSING_S):
                await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    def is_out_of_reach(self) -> bool:
        """Return whether there is no connection now. A failure is then not the backend's answer."""
        return self.channel.get_state() is not grpc.ChannelConnectivity.READY

    def request_probe(self) -> None:
        """Ask for a probe soon: a call got no answer."""
        if self._on_doubt is not None:
            self._on_doubt()

    def set_probe_request(self, call: Callable[[], None]) -> None:
        """Set the function that `request_probe` calls."""
        self._on_doubt = call

    def set_state(self, state: AddressState) -> None:
        """Set the state. Log it, and call `on_change`, where that matters."""
        before, self.state = self.state, state
        if before.is_available != state.is_available:
            self._log_availability()
        if (before.is_available, before.trouble, before.is_settled) != (
            state.is_available,
            state.trouble,
            state.is_settled,
        ):
            self._on_change()

    def note_model(self, model: str, *, serving: bool) -> None:
        """Note whether it serves a model, and log that where it is new."""
        if serving is (model not in self.unserved):
            return
        self.unserved = self.unserved - {model} if serving else self.unserved | {model}
        say = _log.info if serving else _log.warning
        event = "model_available" if serving else "model_unavailable"
        say(event, backend=self.backend, address=self.name, model=model)
        self._on_change()

    def forget_models(self) -> None:
        """Forget all models: the connection is lost."""
        if self.unserved:
            self.unserved = frozenset()
            self._on_change()

    def retire(self) -> None:
        """Log nothing more: the address no longer belongs to its backend."""
        if self._unavailable_timer is not None:
            self._unavailable_timer.cancel()

    def _log_availability(self) -> None:
        if not self.state.is_available:
            loop = asyncio.get_running_loop()
            self._unavailable_timer = loop.call_later(_RENEWED_S, self._log_unavailable)
        elif self._unavailable_timer is not None:
            self._unavailable_timer.cancel()
            self._unavailable_timer = None
        else:
            _log.info("address_available", backend=self.backend, address=self.name)

    def _log_unavailable(self) -> None:
        self._unavailable_timer = None
        why = self.state.trouble
        _log.warning("address_unavailable", backend=self.backend, address=self.name, why=why)


def _remember_call(calls: dict[str, Call], method: str, call: Call) -> None:
    if len(calls) >= _METHODS_MAX:
        del calls[next(iter(calls))]  # the oldest; a later call makes it again
    calls[method] = call

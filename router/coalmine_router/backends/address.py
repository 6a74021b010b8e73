"""One address of a backend: its channel, how to call it, and what is known of it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import grpc
import structlog

from coalmine.listener.uninterrupted import answer_to, is_given_up
from coalmine_router.backends.address_state import AddressState
from coalmine_router.backends.targets import Endpoint
from coalmine_router.metadata import Pair

_log = structlog.get_logger(__name__)

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
RawStreamCall = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
Call = TypeVar("Call", RawCall, RawStreamCall)

# gRPC goes on giving calls to a connection for a moment after it has heard that it is closing.
_CLOSING_S: Final = 0.02
# A connection that is renewed is back by then, and not logged.
_RENEWED_S: Final = 1.0
# Of another service, callers name the methods: whatever they think of.
_METHODS_MAX: Final = 256


class Address:
    """A connected address; the variants of its backend share it.

    `outstanding` counts the calls in flight, by which callers choose between addresses. `on_change`
    is called when something else is known of it.
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
        # Models of which it says that it doesn't serve them.
        self.unserved: frozenset[str] = frozenset()
        self._on_change = on_change
        self._on_doubt: Callable[[], None] | None = None
        # Tells that it is unavailable, if it still is by then.
        self._unavailable_timer: asyncio.TimerHandle | None = None
        self._unaries: dict[str, RawCall] = {}
        self._streams: dict[str, RawStreamCall] = {}

    def unary(self, method: str) -> RawCall:
        """Return how to call `method`, such as /package.Service/Method, here; bytes stay bytes."""
        call = self._unaries.get(method)
        if call is None:
            call = self.channel.unary_unary(method)
            _remember(self._unaries, method, call)
        return call

    def stream(self, method: str) -> RawStreamCall:
        """Return how to call `method` with streams both ways; bytes stay bytes."""
        call = self._streams.get(method)
        if call is None:
            call = self.channel.stream_stream(method)
            _remember(self._streams, method, call)
        return call

    async def call(
        self, method: str, request: bytes, *, metadata: Sequence[Pair] = (), timeout_s: float
    ) -> bytes | None:
        """Return the answer to one call; None: what gRPC makes of an OK without one.

        The hot path has its own way. Raises AioRpcError, also where the channel is closed under the
        call; what gRPC says of metadata that it won't send.
        """
        call = self.unary(method)
        self.outstanding += 1
        try:
            answer: bytes | None = await answer_to(
                call(request, metadata=metadata, timeout=timeout_s)
            )
        except asyncio.CancelledError:
            if is_given_up():
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
        """Return once new calls don't meet the connection that is closing any more; or soon."""
        with contextlib.suppress(TimeoutError, grpc.aio.UsageError):  # it may be closed by now
            async with asyncio.timeout(_CLOSING_S):
                await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    def is_out_of_reach(self) -> bool:
        """Return whether there is no connection now: then a failure is not the backend's answer."""
        return self.channel.get_state() is not grpc.ChannelConnectivity.READY

    def doubt(self) -> None:
        """Have it probed soon: a call was not answered."""
        if self._on_doubt is not None:
            self._on_doubt()

    def on_doubt(self, call: Callable[[], None]) -> None:
        """Have `call` called at each doubt."""
        self._on_doubt = call

    def set_state(self, state: AddressState) -> None:
        """Take in what is known now, and pass a change on once, where it matters."""
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
        """Take in what it says of one model, and log what is new."""
        if serving is (model not in self.unserved):
            return
        self.unserved = self.unserved - {model} if serving else self.unserved | {model}
        say = _log.info if serving else _log.warning
        event = "model_available" if serving else "model_unavailable"
        say(event, backend=self.backend, address=self.name, model=model)
        self._on_change()

    def forget_models(self) -> None:
        """Know nothing of its models any more: the connection is lost."""
        if self.unserved:
            self.unserved = frozenset()
            self._on_change()

    def retire(self) -> None:
        """Log nothing more of it: it is its backend's no longer."""
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


def _remember(calls: dict[str, Call], method: str, call: Call) -> None:
    if len(calls) >= _METHODS_MAX:
        del calls[next(iter(calls))]  # the oldest; it is made again when it is needed
    calls[method] = call

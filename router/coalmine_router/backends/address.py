"""One address of a backend: its channel, how to call it, and what is known of it."""

from collections.abc import Callable
from typing import Final, TypeVar

import grpc
import structlog

from coalmine_router.backends.standing import Standing
from coalmine_router.backends.targets import Endpoint

_log = structlog.get_logger(__name__)

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
RawStreamCall = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
Call = TypeVar("Call", RawCall, RawStreamCall)

# Of another service, callers name the methods: whatever they think of.
_METHODS_MAX: Final = 256


class Address:
    """A connected address; the variants of its backend share it.

    `outstanding` counts the calls in flight, for whoever chooses between addresses. `changed` is
    called when something else is known of it.
    """

    __slots__ = (
        "_changed",
        "_doubted",
        "_streams",
        "_unaries",
        "backend",
        "channel",
        "endpoint",
        "name",
        "outstanding",
        "standing",
        "unserved",
    )

    def __init__(
        self,
        backend: str,
        endpoint: Endpoint,
        channel: grpc.aio.Channel,
        changed: Callable[[], None],
    ) -> None:
        self.backend = backend
        self.endpoint = endpoint
        self.name = endpoint.name
        self.channel = channel
        self.outstanding = 0
        self.standing = Standing()
        # Models of which it says that it doesn't serve them.
        self.unserved: frozenset[str] = frozenset()
        self._changed = changed
        self._doubted: Callable[[], None] | None = None
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

    def is_out_of_reach(self) -> bool:
        """Return whether there is no connection now: then a failure is not the backend's answer."""
        return self.channel.get_state() is not grpc.ChannelConnectivity.READY

    def doubt(self) -> None:
        """Have it found out, soon, whether it answers anything: a call was not answered."""
        if self._doubted is not None:
            self._doubted()

    def when_doubted(self, doubted: Callable[[], None]) -> None:
        """Call `doubted` each time that somebody doubts it."""
        self._doubted = doubted

    def stands(self, standing: Standing) -> None:
        """Take in what is known now, and tell it once where it matters."""
        before, self.standing = self.standing, standing
        if before.is_available != standing.is_available:
            self._tell()
        if (before.is_available, before.trouble, before.is_settled) != (
            standing.is_available,
            standing.trouble,
            standing.is_settled,
        ):
            self._changed()

    def says_of(self, model: str, *, serving: bool) -> None:
        """Take in what it says of one model, and tell what is new."""
        if serving is (model not in self.unserved):
            return
        self.unserved = self.unserved - {model} if serving else self.unserved | {model}
        say = _log.info if serving else _log.warning
        event = "model_available" if serving else "model_unavailable"
        say(event, backend=self.backend, address=self.name, model=model)
        self._changed()

    def forget_models(self) -> None:
        """Know nothing of its models any more: the connection is lost."""
        if self.unserved:
            self.unserved = frozenset()
            self._changed()

    def _tell(self) -> None:
        if self.standing.is_available:
            _log.info("address_available", backend=self.backend, address=self.name)
        else:
            why = self.standing.trouble
            _log.warning("address_unavailable", backend=self.backend, address=self.name, why=why)


def _remember(calls: dict[str, Call], method: str, call: Call) -> None:
    if len(calls) >= _METHODS_MAX:
        del calls[next(iter(calls))]  # the oldest; it is made again when it is needed
    calls[method] = call

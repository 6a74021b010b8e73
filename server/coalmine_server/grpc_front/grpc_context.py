"""A gRPC call's other end, in the words of the services."""

from collections.abc import Callable

from coalmine.status import Context
from coalmine_server.spans import Metadata


class GrpcCallContext:
    """The `Caller` of one gRPC call."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def metadata(self) -> Metadata:
        """Return the call's headers."""
        return self._context.invocation_metadata() or ()

    def remaining_s(self) -> float | None:
        """Return the seconds that gRPC gives the call; None: no deadline."""
        return self._context.time_remaining()

    def call_when_read(self, callback: Callable[[], None]) -> None:
        """Call back once gRPC is done with the call."""
        self._context.add_done_callback(lambda _: callback())  # type: ignore[arg-type]  # the stubs' fault

"""The errors of failed calls: a class for each status, so that `except NotFound` is enough.

Each class is a grpc.aio.AioRpcError. So code that was written for gRPC's own errors catches them
all, from either client, and reads `code()`, `details()` and `trailing_metadata()` as before.
"""

from types import MappingProxyType
from typing import Any, Final, cast

import grpc
from grpc.aio import AioRpcError, Metadata

from coalmine.telemetry import ORIGIN_KEY, ORIGIN_ROUTER

SERVER: Final = "server"


class CallError(AioRpcError):
    """A call that failed. Base of all; itself for a code without a class of its own."""

    @property
    def origin(self) -> str:
        """Who made the error: "router" where a router says so of itself, else "server"."""
        said = dict(cast("Any", self.trailing_metadata()) or ())
        return ORIGIN_ROUTER if said.get(ORIGIN_KEY) == ORIGIN_ROUTER else SERVER


class Cancelled(CallError):
    """CANCELLED: the caller gave up, or closed the client."""


class InvalidArgument(CallError):
    """INVALID_ARGUMENT: the request is wrong and would be wrong again."""


class DeadlineExceeded(CallError):
    """DEADLINE_EXCEEDED: no answer in time."""


class NotFound(CallError):
    """NOT_FOUND: no such model, version, route or variant."""


class PermissionDenied(CallError):
    """PERMISSION_DENIED: the token's role may not do this."""


class Unauthenticated(CallError):
    """UNAUTHENTICATED: no token, or one that isn't known."""


class ResourceExhausted(CallError):
    """RESOURCE_EXHAUSTED: a queue is full, a message too large, or too much in flight."""


class FailedPrecondition(CallError):
    """FAILED_PRECONDITION: not in the state that this needs."""


class Aborted(CallError):
    """ABORTED: something else changed meanwhile."""


class Unimplemented(CallError):
    """UNIMPLEMENTED: not offered there."""


class Internal(CallError):
    """INTERNAL: the model failed, or the server did."""


class Unavailable(CallError):
    """UNAVAILABLE: not now, or nobody could be reached."""


_CLASSES: Final = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: Cancelled,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
        grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
        grpc.StatusCode.ABORTED: Aborted,
        grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
        grpc.StatusCode.INTERNAL: Internal,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
    }
)


def call_error(error: Any) -> CallError:
    """Return gRPC's error, of either kind of channel, as one of ours."""
    return _CLASSES.get(error.code(), CallError)(
        error.code(),
        Metadata(*_metadata_pairs(error.initial_metadata())),
        Metadata(*_metadata_pairs(error.trailing_metadata())),
        details=error.details(),
        debug_error_string=error.debug_error_string(),
    )


def stream_error(message: str) -> CallError:
    """Return the failure of one request of a stream, whose answer is words without a code."""
    return CallError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata(), details=message)


def _metadata_pairs(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata or ()]

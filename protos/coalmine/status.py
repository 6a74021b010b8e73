"""From an error to a gRPC status: the one place."""

import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from coalmine.errors import CoalmineError

_log = structlog.get_logger(__name__)

Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


def status_of(error: CoalmineError) -> grpc.StatusCode:
    """Return the status code of `error`."""
    return grpc.StatusCode[error.code]


async def abort(
    context: Context, error: Exception, trailing: Sequence[tuple[str, str | bytes]] = ()
) -> NoReturn:
    """End the call with the status that `error` stands for, and this trailing metadata.

    An error that is not ours becomes INTERNAL with an incident id; its text stays in the log, where
    the id finds it, because it may hold what a caller must not read.
    """
    if isinstance(error, CoalmineError):
        await context.abort(status_of(error), str(error), tuple(trailing))
    incident = secrets.token_hex(4)
    _log.error("unexpected_error", incident=incident, exc_info=error)
    message = f"internal error, incident {incident}"
    await context.abort(grpc.StatusCode.INTERNAL, message, tuple(trailing))
    raise AssertionError  # abort always raises


def answering(
    method: Callable[[Servicer, Request, Context], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Wrap a unary method of a servicer: what it raises becomes the call's status."""

    @functools.wraps(method)
    async def wrapped(self: Servicer, request: Request, context: Context) -> Response:
        try:
            return await method(self, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status here
            await abort(context, error)

    return wrapped


def streaming(
    method: Callable[[Servicer, Request, Context], AsyncIterator[Response]],
) -> Callable[[Servicer, Request, Context], AsyncIterator[Response]]:
    """Wrap a method that streams answers: what it raises becomes the call's status."""

    @functools.wraps(method)
    async def wrapped(
        self: Servicer, request: Request, context: Context
    ) -> AsyncIterator[Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status here
            await abort(context, error)

    return wrapped

"""From an error to a gRPC status: the one place."""

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import grpc
import structlog

from coalmine.errors import CoalmineError
from coalmine.trace_context import trace_ids

_log = structlog.get_logger(__name__)

Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

# It travels as metadata, in which a byte may take three. Callers refuse more than 8 KiB of that:
# they get RESOURCE_EXHAUSTED then, whatever the code was.
_TEXT_BYTES_MAX: Final = 2_048


def status_of(error: CoalmineError) -> grpc.StatusCode:
    """Return the status code of `error`."""
    return grpc.StatusCode[error.code]


def told(error: Exception, context: Context | None = None) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the text that the caller of `context` gets for `error`.

    An error that is not ours becomes INTERNAL with an incident id; its text stays in the log, where
    the id finds it beside the caller's trace, because it may hold what a caller must not read.
    A text is cut where it is too long to arrive: it may hold what the caller sent.
    """
    if isinstance(error, CoalmineError):
        drop_traceback(error)
        return status_of(error), _cut(str(error))
    incident = secrets.token_hex(4)
    ids = trace_ids(context.invocation_metadata() or ()) if context is not None else {}
    _log.error("unexpected_error", incident=incident, exc_info=error, **ids)
    drop_traceback(error)
    return grpc.StatusCode.INTERNAL, f"internal error, incident {incident}"


def drop_traceback(error: Exception) -> None:
    """Drop the way that an error has come: its frames hold the request.

    gRPC keeps what has ended a call, in a circle that is found only when garbage is collected: by
    then, refused requests of 64 MiB would have filled the memory.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _cut(text: str) -> str:
    if len(text) * 4 <= _TEXT_BYTES_MAX:  # of UTF-8, at the most
        return text
    data = text.encode(errors="replace")
    if len(data) <= _TEXT_BYTES_MAX:
        return text
    return data[:_TEXT_BYTES_MAX].decode(errors="ignore") + " …"


async def abort(
    context: Context, error: Exception, trailing: Sequence[tuple[str, str | bytes]] = ()
) -> NoReturn:
    """End the call with the status that `error` stands for, and this trailing metadata."""
    code, message = told(error, context)
    await end(context, code, message, trailing)


async def end(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    trailing: Sequence[tuple[str, str | bytes]] = (),
) -> NoReturn:
    """End the call with this status. Raises CancelledError where its caller is gone by now.

    gRPC can't tell anybody then, and calls that an error of its own: it is none of ours either.
    """
    try:
        await context.abort(code, message, tuple(trailing))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError  # abort always raises


def answering(
    method: Callable[[Servicer, Request, Context], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Wrap a unary method of a servicer: what it raises becomes the call's status.

    So does a request that is an error: a deserialiser returns it, as gRPC answers UNKNOWN to one
    that raises.
    """

    @functools.wraps(method)
    async def call_method(self: Servicer, request: Request, context: Context) -> Response:
        if isinstance(request, CoalmineError):  # what its bytes were read as
            await abort(context, request)
        try:
            return await method(self, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: everything becomes a status here
            del request  # as in let_go: this frame holds it too
            await abort(context, error)

    return call_method

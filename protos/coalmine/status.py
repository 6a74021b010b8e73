"""Turns errors into gRPC statuses. No other module does."""

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


def status_and_text(
    error: Exception, context: Context | None = None
) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the text that the caller of `context` gets for `error`.

    An error that is not ours becomes INTERNAL with an incident id. Its text may hold what a caller
    must not read, so it stays in the log, where the id stands beside the caller's trace. A text of
    ours may hold what the caller sent, so it is cut if it is too long to arrive.
    """
    if isinstance(error, CoalmineError):
        drop_traceback(error)
        return status_of(error), _cut_text(str(error))
    incident = secrets.token_hex(4)
    ids = trace_ids(context.invocation_metadata() or ()) if context is not None else {}
    _log.error("unexpected_error", incident=incident, exc_info=error, **ids)
    drop_traceback(error)
    return grpc.StatusCode.INTERNAL, f"internal error, incident {incident}"


def drop_traceback(error: Exception) -> None:
    """Drop the traceback of an error: its frames hold the request.

    gRPC keeps the error that has ended a call, in a circle that only the garbage collector finds.
    By then, refused requests of 64 MiB would have filled the memory.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _cut_text(text: str) -> str:
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
    code, message = status_and_text(error, context)
    await end_call(context, code, message, trailing)


async def end_call(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    trailing: Sequence[tuple[str, str | bytes]] = (),
) -> NoReturn:
    """End the call with this status. Raises CancelledError if its caller is gone.

    gRPC then raises an internal error, which is no incident.
    """
    try:
        await context.abort(code, message, tuple(trailing))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError  # abort always raises


def answering(
    method: Callable[[Servicer, Request, Context], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Wrap a method of a servicer: an exception becomes the call's status.

    So does a request that is an error. A deserialiser returns errors, because gRPC answers UNKNOWN
    to one that raises.
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

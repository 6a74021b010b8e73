"""Retries of calls that found no listener, as while a router reloads its file.

Its control process then gives its place to another, and for a moment nobody listens. A call is made
again only if nobody has read it: a router may have carried out whatever it has read.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import grpc

from coalmine_client.cli.liveness import first_answer_within_s

_AGAIN_FOR_S: Final = 2.0
_AGAIN_EACH_S: Final = 0.05
# Far less than a grace period.
_TURNED_AWAY_S: Final = 0.5
# A channel looks by itself only every second, and less often each time.
RECONNECTING: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
)

# What gRPC says of a call that found no connection to be sent on. Of one that was sent, it says by
# other words that its connection broke.
_UNSENT: Final = "failed to connect to all addresses"
# Nobody listens there; or who listened went away before the connection was made.
_REFUSED: Final = ("Connection refused", "Connection reset")

Answer = TypeVar("Answer")


def with_retries(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """Return the channel for stubs that make a refused call again."""
    return cast("grpc.aio.Channel", _RetryingChannel(channel))


class _RetryingChannel:
    """The part of a channel that a stub uses."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, *said: Any, **more: Any) -> Callable[..., Awaitable[object]]:
        call = self._channel.unary_unary(*said, **more)
        return lambda *asked, **how: _call_with_retries(lambda: call(*asked, **how))

    def unary_stream(self, *said: Any, **more: Any) -> Callable[..., AsyncIterator[object]]:
        call = self._channel.unary_stream(*said, **more)
        return lambda *asked, **how: _stream_with_retries(lambda: call(*asked, **how))


async def _call_with_retries(call: Callable[[], Awaitable[Answer]]) -> Answer:
    patience = _RetryWindow()
    while True:
        patience.note_sent()
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            await patience.wait_or_raise(error)


async def _stream_with_retries(call: Callable[[], AsyncIterable[Answer]]) -> AsyncIterator[Answer]:
    patience = _RetryWindow()
    while True:
        patience.note_sent()
        try:
            async for each in call():
                yield each
        except grpc.aio.AioRpcError as error:
            await patience.wait_or_raise(error)
        else:
            return


class _RetryWindow:
    """How long one call is made again: the operator has an answer within three seconds."""

    def __init__(self) -> None:
        self._ends_s = time.monotonic() + min(_AGAIN_FOR_S, first_answer_within_s())
        self._sent_s = 0.0

    def note_sent(self) -> None:
        """Note that a try begins."""
        self._sent_s = time.monotonic()

    async def wait_or_raise(self, error: grpc.aio.AioRpcError) -> None:
        """Return when it is time for the next try. Raises `error` where there is none."""
        now_s = time.monotonic()
        is_unread = _was_refused(error) or _was_turned_away(error, now_s - self._sent_s)
        if not is_unread or now_s > self._ends_s:
            raise error
        await asyncio.sleep(_AGAIN_EACH_S)


def _was_turned_away(error: grpc.aio.AioRpcError, took_s: float) -> bool:
    """Return whether a process that has begun to stop has turned the call away unread.

    gRPC itself says so at once, with a bare CANCELLED. A call that the process has read is
    cancelled at the end of its grace period at the earliest, when no other call is let in.
    """
    is_bare = error.code() is grpc.StatusCode.CANCELLED and error.details() == "CANCELLED"
    return is_bare and took_s < _TURNED_AWAY_S


def _was_refused(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the call was never sent, because nobody listens there."""
    details = error.details() or ""
    is_unsent = error.code() is grpc.StatusCode.UNAVAILABLE and _UNSENT in details
    return is_unsent and any(words in details for words in _REFUSED)

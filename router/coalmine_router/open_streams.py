"""Streams that stay open: how many may be, and their end when the process stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc

from coalmine.errors import Overloaded, Unavailable
from coalmine.status import Context

End = Callable[[], None]

# A caller that takes nothing for so long is given up.
_LAST_WRITE_S: Final = 2.0


class OpenStreams:
    """The open streams of one method. A graceful stop would wait for them forever."""

    def __init__(self, method: str, *, open_max: int) -> None:
        self._method = method
        self._open_max = open_max
        self._scopes: set[asyncio.Timeout] = set()
        self._is_ended = False
        self.turned_away = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[End]:
        """Run the body as one open stream; calling what is yielded leaves it, without an error.

        Raises Overloaded where too many are open, Unavailable after `end_all`.
        """
        self._admit()
        # A timeout that never comes due by itself is asyncio's way to leave a body from outside.
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        try:
            async with scope:
                yield lambda: _end_scope(scope)
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scopes.discard(scope)

    def end_all(self) -> None:
        """End all that are open, and let no other open."""
        self._is_ended = True
        for scope in self._scopes:
            _end_scope(scope)

    def _admit(self) -> None:
        if self._is_ended:
            raise Unavailable(f"{self._method}: the router's control process is stopping")
        if len(self._scopes) >= self._open_max:
            self.turned_away += 1
            raise Overloaded(f"{self._method}: {self._open_max} streams are open, the most allowed")


async def write_message(context: Context, message: object) -> None:
    """Write a message on a stream; left meanwhile, it first lets the write come to its end.

    gRPC can't send a status while a write is under way: the caller would wait for it for ever.
    """
    # Not in a task group: the write must outlive the cancellation of whoever waits for it.
    writing = asyncio.ensure_future(context.write(message))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        with contextlib.suppress(grpc.aio.BaseError, TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_S):
                await writing
        raise


def _end_scope(scope: asyncio.Timeout) -> None:
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())

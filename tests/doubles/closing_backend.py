"""A backend that closes a connection under the calls on it, and says which it had looked at."""

import asyncio
import contextlib
import struct

from tests.doubles.http2 import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    read_frame,
)
from tests.doubles.lifetime import Lifetime
from tests.doubles.waiting import eventually

_ANY_STREAM = 2**31 - 1

# HPACK: `:status: 200` is one of the static table; the others are literals.
_UNIMPLEMENTED = b"\x88" + b"".join(
    b"\0" + bytes([len(key)]) + key + bytes([len(value)]) + value
    for key, value in ((b"content-type", b"application/grpc"), (b"grpc-status", b"12"))
)


class ClosingBackend(Lifetime):
    """`async with ClosingBackend(looks=False) as backend:` closes on the first `closings` calls.

    Only ModelInfer is meant, and only the first on a connection. `looks`: the backend had begun to
    work on it, by what its GOAWAY says. All other calls are UNIMPLEMENTED here. `asked` counts all
    calls of ModelInfer.
    """

    def __init__(self, *, looks: bool, closings: int = 1) -> None:
        self.asked = 0
        self.address = ""
        self._last_stream = _ANY_STREAM if looks else 0
        self._closings = closings
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await eventually(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(PREFACE))
            writer.write(frame(SETTINGS, 0, 0, b""))
            while not await self._is_over(reader, writer):
                await writer.drain()
        writer.close()
        self._writers.discard(writer)

    async def _is_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        kind, _, stream, payload = await read_frame(reader, writer)
        return kind == HEADERS and await self._called(writer, stream, payload)

    async def _called(self, writer: asyncio.StreamWriter, stream: int, headers: bytes) -> bool:
        is_meant = b"/ModelInfer" in headers
        self.asked += is_meant
        if is_meant and self._closings:
            self._closings -= 1
            goaway = struct.pack(">II", self._last_stream, 0) + b"max_age"
            writer.write(frame(GOAWAY, 0, 0, goaway))
            await writer.drain()
            return True
        writer.write(frame(HEADERS, END_STREAM | END_HEADERS, stream, _UNIMPLEMENTED))
        return False

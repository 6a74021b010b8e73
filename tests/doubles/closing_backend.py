"""A backend that closes a connection under the calls on it, and says which it had looked at."""

import asyncio
import contextlib
import struct
from types import TracebackType
from typing import Self

from tests.doubles.waiting import eventually

_PREFACE_BYTES = 24
_HEADERS, _SETTINGS, _PING, _GOAWAY = 1, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_ANY_STREAM = 2**31 - 1

# HPACK: `:status: 200` is one of the static table; the others are literals.
_UNIMPLEMENTED = b"\x88" + b"".join(
    b"\0" + bytes([len(key)]) + key + bytes([len(value)]) + value
    for key, value in ((b"content-type", b"application/grpc"), (b"grpc-status", b"12"))
)


class ClosingBackend:
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

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await eventually(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(_PREFACE_BYTES)
            writer.write(_frame(_SETTINGS, 0, 0, b""))
            while not await self._is_over(reader, writer):
                await writer.drain()
        writer.close()
        self._writers.discard(writer)

    async def _is_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readexactly(9)
        length, (kind, flags, stream) = int.from_bytes(head[:3]), struct.unpack(">BBI", head[3:])
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _HEADERS:
            return await self._called(writer, stream, payload)
        return False

    async def _called(self, writer: asyncio.StreamWriter, stream: int, headers: bytes) -> bool:
        is_meant = b"/ModelInfer" in headers
        self.asked += is_meant
        if is_meant and self._closings:
            self._closings -= 1
            goaway = struct.pack(">II", self._last_stream, 0) + b"max_age"
            writer.write(_frame(_GOAWAY, 0, 0, goaway))
            await writer.drain()
            return True
        writer.write(_frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, _UNIMPLEMENTED))
        return False


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

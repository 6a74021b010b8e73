"""A backend of a few lines: answers with frames of HTTP/2 that no gRPC server would send."""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence

from tests.doubles.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Header,
    frame,
    read_frame,
)
from tests.doubles.lifetime import Lifetime

_FRAME_BYTES = 16_000

# Paths come in full then, with every call.
_NO_TABLE = struct.pack(">HI", 1, 0)

# From the number of a stream to the frames that answer it.
Frames = Callable[[int], Sequence[bytes]]

HEAD: Sequence[Header] = ((b":status", b"200"), (b"content-type", b"application/grpc"))


class RawBackend(Lifetime):
    """`async with RawBackend(frames) as backend:` answers every call so; health is UNIMPLEMENTED.

    `asked` counts the calls.
    """

    def __init__(self, frames: Frames) -> None:
        self.asked = 0
        self.address = ""
        self._frames = frames
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readexactly(len(PREFACE))
                writer.write(frame(SETTINGS, 0, 0, _NO_TABLE))
                while True:
                    await self._take(reader, writer)
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, _, stream, payload = await read_frame(reader, writer)
        if kind == HEADERS and b"grpc.health" in payload:
            writer.write(b"".join(status(stream, 12)))
        elif kind == HEADERS:
            self.asked += 1
            writer.write(b"".join(self._frames(stream)))
        await writer.drain()


def status(stream: int, code: int, *more: Header) -> list[bytes]:
    """Return the frames of a call that ends with a status and no answer."""
    return headers(stream, (*HEAD, (b"grpc-status", b"%d" % code), *more))


def answer(stream: int, body: bytes, *last: Header, first: Sequence[Header] = ()) -> list[bytes]:
    """Return the frames of an answer whose bytes are `body`, with the headers `last` after it."""
    return [
        *headers(stream, (*HEAD, *first), is_end=False),
        *data(stream, body),
        *headers(stream, last),
    ]


def headers(stream: int, pairs: Sequence[Header], *, is_end: bool = True) -> list[bytes]:
    """Return the frames of a block of headers."""
    block = b"".join(b"\0" + _text(key) + _text(value) for key, value in pairs)
    parts = [block[at : at + _FRAME_BYTES] for at in range(0, len(block), _FRAME_BYTES)]
    first_flags = END_STREAM if is_end else 0
    return [
        frame(
            CONTINUATION if place else HEADERS,
            (0 if place else first_flags) | (END_HEADERS if place == len(parts) - 1 else 0),
            stream,
            part,
        )
        for place, part in enumerate(parts)
    ]


def data(stream: int, body: bytes, *, is_end: bool = False) -> list[bytes]:
    """Return a frame of data."""
    return [frame(DATA, END_STREAM if is_end else 0, stream, body)]


def reset(stream: int, number: int) -> list[bytes]:
    """Return the frame that breaks a stream off."""
    return [frame(RST_STREAM, 0, stream, struct.pack(">I", number))]


def _text(text: bytes) -> bytes:
    """Return a string of HPACK, not Huffman-coded."""
    length, size = len(text), b""
    if length < 0x7F:
        return bytes([length]) + text
    length -= 0x7F
    while length >= 0x80:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return b"\x7f" + size + bytes([length]) + text

"""An HTTP/2 client of a few lines, for what no gRPC client would do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence

from tests.doubles.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Header,
    frame,
    message,
    read_frame,
)

_INITIAL_WINDOW_SIZE = 4
_CANCEL, _LAST = b"\0\0\0\x08", b"the last"


async def call(address: str, method: str, body: bytes, headers: Sequence[Header]) -> str:
    """Call a unary gRPC method with `headers` as they are; return how it ended.

    `answered`: the server closed the stream with headers of its own; `reset`; `closed`: it ended
    the whole connection.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
        writer.write(frame(HEADERS, END_HEADERS, 1, _block(address, method, headers)))
        writer.write(frame(DATA, END_STREAM, 1, message(body)))
        async with asyncio.timeout(10):
            return await _end(reader, writer)
    finally:
        writer.close()


class UnreadCall:
    """A call whose caller takes no byte of the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, body: bytes, *, last: bool = False) -> None:
        """Send a message."""
        self._writer.write(frame(DATA, END_STREAM if last else 0, 1, message(body)))

    async def answered(self) -> bool:
        """Return whether an answer has begun, and not a status alone; waits for either."""
        while True:
            head = await self._reader.readexactly(9)
            length, (kind, flags, _) = int.from_bytes(head[:3]), struct.unpack(">BBI", head[3:])
            await self._reader.readexactly(length)
            if kind == HEADERS:
                return not flags & END_STREAM


@contextlib.asynccontextmanager
async def unread_call(
    address: str, method: str, headers: Sequence[Header] = ()
) -> AsyncIterator[UnreadCall]:
    """Begin a call that gives the peer no room for an answer; hang up at the end of the block."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        no_window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        writer.write(PREFACE + frame(SETTINGS, 0, 0, no_window))
        writer.write(frame(HEADERS, END_HEADERS, 1, _block(address, method, headers)))
        yield UnreadCall(reader, writer)
    finally:
        writer.close()


def reset_streams(address: str, method: str, count: int) -> None:
    """Open so many streams and reset each at once; return when all were read. Blocks the thread."""
    host, _, port = address.rpartition(":")
    head = _block(address, method, ())
    with socket.create_connection((host, int(port)), timeout=60) as connected:
        connected.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, ACK, 0, b""))
        for stream in range(1, 2 * count, 2):
            connected.sendall(
                frame(HEADERS, END_HEADERS, stream, head) + frame(RST_STREAM, 0, stream, _CANCEL)
            )
        connected.sendall(frame(PING, 0, 0, _LAST))
        seen = b""
        while _LAST not in seen:
            more = connected.recv(1 << 16)
            assert more, "the connection was closed"
            seen += more


def _block(address: str, method: str, headers: Sequence[Header]) -> bytes:
    own = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", address.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return b"".join(
        _literal(key) + _literal(value, marked=False) for key, value in (*own, *headers)
    )


def _literal(text: bytes, *, marked: bool = True) -> bytes:
    """Return a literal of HPACK, not indexed and not Huffman-coded, of less than 127 bytes."""
    assert len(text) < 127
    return (b"\0" if marked else b"") + bytes([len(text)]) + text


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    while True:
        try:
            kind, flags, _, _ = await read_frame(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return "closed"
        if kind == HEADERS and flags & END_STREAM:
            return "answered"
        if kind == RST_STREAM:
            return "reset"
        if kind == GOAWAY:
            return "closed"

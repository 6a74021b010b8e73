"""An HTTP/2 client of a few lines, for what no gRPC client would do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SIZE = 4
_CANCEL, _LAST = b"\0\0\0\x08", b"the last"

Header = tuple[bytes, bytes]


async def call(address: str, method: str, body: bytes, headers: Sequence[Header]) -> str:
    """Call a unary gRPC method with `headers` as they are; return how it ended.

    `answered`: the server closed the stream with headers of its own; `reset`; `closed`: it ended
    the whole connection.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        writer.write(_frame(_HEADERS, _END_HEADERS, 1, _block(address, method, headers)))
        message = b"\0" + struct.pack(">I", len(body)) + body
        writer.write(_frame(_DATA, _END_STREAM, 1, message))
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
        message = b"\0" + struct.pack(">I", len(body)) + body
        self._writer.write(_frame(_DATA, _END_STREAM if last else 0, 1, message))

    async def answered(self) -> bool:
        """Return whether an answer has begun, and not a status alone; waits for either."""
        while True:
            head = await self._reader.readexactly(9)
            length, (kind, flags, _) = int.from_bytes(head[:3]), struct.unpack(">BBI", head[3:])
            await self._reader.readexactly(length)
            if kind == _HEADERS:
                return not flags & _END_STREAM


@contextlib.asynccontextmanager
async def unread_call(
    address: str, method: str, headers: Sequence[Header] = ()
) -> AsyncIterator[UnreadCall]:
    """Begin a call that gives the peer no room for an answer; hang up at the end of the block."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        no_window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, no_window))
        writer.write(_frame(_HEADERS, _END_HEADERS, 1, _block(address, method, headers)))
        yield UnreadCall(reader, writer)
    finally:
        writer.close()


def reset_streams(address: str, method: str, count: int) -> None:
    """Open so many streams and reset each at once; return when all were read. Blocks the thread."""
    host, _, port = address.rpartition(":")
    head = _block(address, method, ())
    with socket.create_connection((host, int(port)), timeout=60) as connected:
        connected.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_SETTINGS, _ACK, 0, b""))
        for stream in range(1, 2 * count, 2):
            connected.sendall(
                _frame(_HEADERS, _END_HEADERS, stream, head)
                + _frame(_RST_STREAM, 0, stream, _CANCEL)
            )
        connected.sendall(_frame(_PING, 0, 0, _LAST))
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


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    while True:
        try:
            head = await reader.readexactly(9)
        except (asyncio.IncompleteReadError, ConnectionError):
            return "closed"
        length, (kind, flags, _) = int.from_bytes(head[:3]), struct.unpack(">BBI", head[3:])
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _HEADERS and flags & _END_STREAM:
            return "answered"
        elif kind == _RST_STREAM:
            return "reset"
        elif kind == _GOAWAY:
            return "closed"

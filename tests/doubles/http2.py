"""Frames of HTTP/2 and messages of gRPC, for doubles that speak them without any library."""

import asyncio
import struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1

Header = tuple[bytes, bytes]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return the bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body: bytes, *, is_compressed: bool = False) -> bytes:
    """Return the bytes of a message of gRPC."""
    return bytes([is_compressed]) + struct.pack(">I", len(body)) + body


async def read_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Frame:
    """Read a frame. Settings and pings are acknowledged."""
    head = await reader.readexactly(9)
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    payload = await reader.readexactly(int.from_bytes(head[:3]))
    if kind == SETTINGS and not flags & ACK:
        writer.write(frame(SETTINGS, ACK, 0, b""))
    elif kind == PING and not flags & ACK:
        writer.write(frame(PING, ACK, 0, payload))
    return Frame(kind, flags, stream, payload)

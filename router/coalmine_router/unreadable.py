"""What gRPC itself made of a backend's answer, and what a caller could not take of one. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from coalmine_router.metadata import Pair

_EXHAUSTED: Final = "RESOURCE_EXHAUSTED"

# What stands around gRPC's own texts, where the call was under way.
REMOVED: Final = "Stream removed ("
# Of a call with a number above the last that the peer would still look at.
_UNTOUCHED: Final = "GOAWAY received"
# Of a request that was too large to be sent: nobody's fault but the caller's.
_SENT: Final = "CLIENT: Sent message larger"
# A peer that sheds calls says so by a reset with this number.
_SHED: Final = "RST_STREAM (Received RST_STREAM with error code 11)"
# What gRPC's texts begin with, of answers that it could not read …
_TOO_LARGE: Final = (
    "CLIENT: Received message larger",
    "received metadata size exceeds",
    "Decompressed message larger",
)
# … and of those that were none.
_NO_ANSWER: Final = (
    *("Received http2 header with status:", "No status received", "Decompression failed"),
    "Received http2 :status header with non-200 OK status",
    # A write on a stream that has just ended: gRPC forgets how.
    "Internal error from Core",
)

# Callers take 8 KiB of metadata at the end of a call, unless they say otherwise: the rest is for
# what gRPC and the router add.
ROOM_BYTES: Final = 7 * 1_024
# Metadata must not take the room of the text that explains an error.
_TEXT_ROOM_BYTES: Final = 2_048
_MARK_BYTES: Final = 128
_PAIR_BYTES: Final = 32


def grpc_text(code: str, text: str, metadata: Iterable[Pair]) -> str:
    """Return what gRPC says of an answer, in its own words; "" where they are the backend's."""
    if text.startswith(REMOVED) and not tuple(metadata):
        return text[len(REMOVED) :].removesuffix(")")
    if text.startswith(_NO_ANSWER):
        return text
    is_size = code == _EXHAUSTED and text.startswith((_SENT, *_TOO_LARGE))
    return text if is_size else ""


def is_unreadable(code: str, own: str) -> bool:
    """Return whether gRPC's own text, `own`, tells of an answer that came and can't be read.

    Its status then says nothing of what the backend would have answered.
    """
    if code == "PERMISSION_DENIED":
        return own.startswith("RST_STREAM")
    return bool(own) and code == _EXHAUSTED and not own.startswith((_SENT, _SHED))


def is_untouched(code: str, text: str, metadata: Iterable[Pair]) -> bool:
    """Return whether a call's connection closed with the word that nobody had looked at it.

    Of a call that somebody had looked at, the text tells of the connection's end first; and what
    came with metadata is what somebody said.
    """
    if code != "UNAVAILABLE" or tuple(metadata):
        return False
    return text.removeprefix(REMOVED).startswith(_UNTOUCHED)


def metadata_bytes(metadata: Iterable[Pair]) -> int:
    """Return the size of metadata as HTTP/2 counts it, in bytes."""
    return sum(len(key) + _value_bytes(key, value) + _PAIR_BYTES for key, value in metadata)


def error_within_room(text: str, metadata: Sequence[Pair]) -> tuple[str, list[Pair]]:
    """Return an error's text and metadata as far as a caller can take them, marked where cut."""
    needed, carried = _encoded_bytes(text), metadata_bytes(metadata)
    if needed + carried <= ROOM_BYTES:
        return text, list(metadata)
    room = ROOM_BYTES - min(needed, _TEXT_ROOM_BYTES) - _MARK_BYTES
    kept: list[Pair] = []
    for pair in metadata:
        size = metadata_bytes((pair,))
        if size <= room:
            room -= size
            kept.append(pair)
    left_out = len(metadata) - len(kept)
    mark = f" … [{left_out} metadata left out by the router]" if left_out else ""
    return _cut_text(text, ROOM_BYTES - metadata_bytes(kept) - _MARK_BYTES) + mark, kept


def _value_bytes(key: str, value: str | bytes) -> int:
    return (len(value) + 2) // 3 * 4 if key.endswith("-bin") else len(value)


def _cut_text(text: str, room: int) -> str:
    """Return the text within `room` bytes as it travels, before the mark that it was cut."""
    if _encoded_bytes(text) <= room:
        return text
    data, at = text.encode(errors="replace"), 0
    while at < len(data) and (room := room - _byte_cost(data[at])) >= 0:
        at += 1
    return data[:at].decode(errors="ignore") + f" … [cut by the router, of {len(data)} bytes]"


def _encoded_bytes(text: str) -> int:
    """Return the length of a text as gRPC sends it: percent-encoded, but for printable ASCII."""
    return sum(map(_byte_cost, text.encode(errors="replace")))


def _byte_cost(byte: int) -> int:
    return 1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3

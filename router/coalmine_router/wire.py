"""ModelInfer requests as raw bytes: read the model's name, set another name and version. Pure.

Both rest on one rule of protobuf: where a scalar field comes twice, the last one wins. So reading
must walk every top-level field, and setting is appending. Tensors are skipped, never decoded.
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from typing import Final

from coalmine.errors import InvalidRequest
from coalmine.varint import varint

_MODEL_NAME: Final = 1
_MODEL_VERSION: Final = 2

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5

# A request holds a field an input, output, parameter and raw blob. The bound keeps a message of
# millions of empty fields from holding up everybody else's requests.
FIELDS_MAX: Final = 10_000


def model_name(request: bytes) -> str:
    """Return `model_name` (field 1, a string) of a serialised ModelInferRequest; "" where unset.

    The core requests ModelReady and ModelMetadata have their `name` in the same place.
    Raises InvalidRequest for bytes that are no protobuf message, or have over 10,000 fields; also
    for groups, which proto3 has not.
    """
    start, end = 0, 0
    at, size = 0, len(request)
    for _ in range(FIELDS_MAX + 1):
        if at == size:
            return _text(request[start:end])
        tag, at = (request[at], at + 1) if request[at] < 0x80 else _varint(request, at)
        begin, at = _extent(request, tag & 7, at)
        if at > size or tag < 8:
            raise InvalidRequest("malformed request: a field is cut off")
        if tag == _MODEL_NAME << 3 | _LENGTH:
            start, end = begin, at
    raise InvalidRequest(f"malformed request: more than {FIELDS_MAX} fields")


def override(model: str, version: str) -> bytes:
    """Return what, appended to a request, sets its name and version; "" keeps what it has."""
    return _field(_MODEL_NAME, model) + _field(_MODEL_VERSION, version)


def _field(number: int, value: str) -> bytes:
    data = value.encode()
    return bytes([number << 3 | _LENGTH]) + varint(len(data)) + data if data else b""


def _extent(data: bytes, kind: int, at: int) -> tuple[int, int]:
    """Return where the value of a field begins and ends."""
    if kind == _LENGTH:
        # Most are short: a length of one byte, read in place.
        if at < len(data) and data[at] < 0x80:
            return at + 1, at + 1 + data[at]
        length, at = _varint(data, at)
        return at, at + length
    if kind == _VARINT:
        return at, _varint(data, at)[1]
    if kind == _FIXED64:
        return at, at + 8
    if kind == _FIXED32:
        return at, at + 4
    raise InvalidRequest(f"malformed request: wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the value at `at` and where it ends."""
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value = byte & 0x7F
        for shift in range(7, 70, 7):
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at + 1
    except IndexError:
        raise InvalidRequest("malformed request: a number is cut off") from None
    raise InvalidRequest("malformed request: a number is longer than ten bytes")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("malformed request: the model's name is not UTF-8") from None

"""ModelInfer requests as raw bytes: read what routes them, set another name and version. Pure.

Both rest on one rule of protobuf: where a scalar field comes twice, the last one wins. So reading
must walk every top-level field, and setting is appending. Tensors are skipped, never decoded.
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from struct import unpack_from
from typing import Final

from coalmine.errors import InvalidRequest
from coalmine.varint import varint

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5

# Fields have tags: their number, and how their value lies on the wire.
_MODEL_NAME: Final = 1 << 3 | _LENGTH
_MODEL_VERSION: Final = 2 << 3 | _LENGTH
_ID: Final = 3 << 3 | _LENGTH
_PARAMETERS: Final = 4 << 3 | _LENGTH

# Of an entry of `parameters`.
_KEY: Final = 1 << 3 | _LENGTH
_VALUE: Final = 2 << 3 | _LENGTH

# Of an InferParameter, of which one is chosen.
_BOOL: Final = 1 << 3 | _VARINT
_INT64: Final = 2 << 3 | _VARINT
_STRING: Final = 3 << 3 | _LENGTH
_DOUBLE: Final = 4 << 3 | _FIXED64
_UINT64: Final = 5 << 3 | _VARINT
_CHOICES: Final = (_BOOL, _INT64, _STRING, _DOUBLE, _UINT64)
_UINT64_MAX: Final = 2**64 - 1

# A request holds a field an input, output, parameter and raw blob. The bound keeps a message of
# millions of empty fields from holding up everybody else's requests.
FIELDS_MAX: Final = 10_000
# An entry holds its key and its value, an InferParameter its choice; more is legal, and nobody's.
_ENTRY_FIELDS_MAX: Final = 8

# Its tag, and where its value begins and ends.
Field = tuple[int, int, int]


def model_name(request: bytes) -> str:
    """Return `model_name` (field 1, a string) of a serialised ModelInferRequest; "" where unset.

    The core requests ModelReady and ModelMetadata have their `name` in the same place.
    Raises InvalidRequest for bytes that are no protobuf message, or have over 10,000 fields; also
    for groups, which proto3 has not.
    """
    return _last_text(request, _MODEL_NAME, "the model's name")


def model_version(request: bytes) -> str:
    """Return `model_version` (field 2) of a serialised ModelInferRequest; "" where unset.

    ModelReady and ModelMetadata have theirs in the same place. Raises InvalidRequest where
    model_name does.
    """
    return _last_text(request, _MODEL_VERSION, "the model's version")


def request_id(request: bytes) -> str | None:
    """Return `id` (field 3) of a serialised ModelInferRequest; None where unset or empty.

    Raises InvalidRequest where model_name does.
    """
    return _last_text(request, _ID, "the request's id") or None


def parameter(request: bytes, name: str) -> str | None:
    """Return the request parameter `name` as text; None where absent, unset or an empty string.

    Numbers come as Python writes them, a bool as true or false; of two by this name, the last.
    Raises InvalidRequest where model_name does, and for an entry of more than 8 fields.
    """
    key = name.encode()
    for entry in reversed(_fields(request, (_PARAMETERS,), 0, len(request))):
        value = _parameter_of(request, entry, key)
        if value is not None:
            return _parameter_text(value)
    return None


def override_bytes(model: str, version: str) -> bytes:
    """Return what, appended to a request, sets its name and version; "" keeps what it has."""
    return _text_field(_MODEL_NAME, model) + _text_field(_MODEL_VERSION, version)


def _text_field(tag: int, value: str) -> bytes:
    data = value.encode()
    return bytes([tag]) + varint(len(data)) + data if data else b""


def _fields(
    data: bytes, wanted: tuple[int, ...], at: int, end: int, most: int = FIELDS_MAX
) -> list[Field]:
    """Return the fields with these tags between `at` and `end`, in the order they stand there."""
    found: list[Field] = []
    for _ in range(most + 1):
        if at == end:
            return found
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _read_varint(data, at)
        # Most are short: a length of one byte, read in place.
        if tag & 7 == _LENGTH and at < end and data[at] < 0x80:
            begin = at + 1
            at = begin + data[at]
        else:
            begin, at = _value_range(data, tag & 7, at)
        if at > end or tag < 8:
            raise InvalidRequest("malformed request: a field is cut off")
        if tag in wanted:
            found.append((tag, begin, at))
    raise InvalidRequest(f"malformed request: more than {most} fields")


def _last_text(data: bytes, tag: int, what: str) -> str:
    found = _fields(data, (tag,), 0, len(data))
    return _decoded_text(data[found[-1][1] : found[-1][2]], what) if found else ""


def _parameter_of(request: bytes, entry: Field, key: bytes) -> bytes | None:
    """Return the InferParameter of an entry, or None where the entry is another key's.

    What stands there twice is one message, protobuf says: its parts, one after the other.
    """
    found = _fields(request, (_KEY, _VALUE), entry[1], entry[2], _ENTRY_FIELDS_MAX)
    keys = [request[begin:end] for tag, begin, end in found if tag == _KEY]
    if (keys[-1] if keys else b"") != key:
        return None
    return b"".join(request[begin:end] for tag, begin, end in found if tag == _VALUE)


def _parameter_text(value: bytes) -> str | None:
    """Return the choice of an InferParameter as text; of several on the wire, the last."""
    chosen = _fields(value, _CHOICES, 0, len(value), _ENTRY_FIELDS_MAX)
    if not chosen:
        return None
    tag, begin, end = chosen[-1]
    if tag == _STRING:
        return _decoded_text(value[begin:end], "a parameter") or None
    if tag == _DOUBLE:
        return repr(unpack_from("<d", value, begin)[0])
    number = _read_varint(value, begin)[0] & _UINT64_MAX
    if tag == _BOOL:
        return "true" if number else "false"
    return str(number - 2**64 if tag == _INT64 and number >= 2**63 else number)


def _value_range(data: bytes, kind: int, at: int) -> tuple[int, int]:
    """Return where the value of a field begins and ends."""
    if kind == _LENGTH:
        length, at = _read_varint(data, at)
        return at, at + length
    if kind == _VARINT:
        return at, _read_varint(data, at)[1]
    if kind == _FIXED64:
        return at, at + 8
    if kind == _FIXED32:
        return at, at + 4
    raise InvalidRequest(f"malformed request: wire type {kind}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
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


def _decoded_text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"malformed request: {what} is not UTF-8") from None

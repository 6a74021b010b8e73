"""From a message's bytes to a request, without a copy of its raw contents. Pure.

protobuf copies raw contents twice: into its own memory, and again when they are read. So the bytes
of a large message are walked here: its raw contents become views of them, and protobuf reads only
the rest. From a view to the batch tensor there is then one copy, or none (runtime/torchscript.py).
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from coalmine.errors import InvalidRequest
from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.listener.request_decoding import malformed_request

# Below this, protobuf's two copies cost less than the walk.
WALKED_BYTES: Final = 64 * 1024
# More fields than any sound request has are left to protobuf: its loop is not in Python.
FIELDS_MAX: Final = 1_000

_LENGTH: Final = 2
_RAW: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH


@dataclass(slots=True, eq=False)
class InferRequest:
    """A ModelInferRequest, its raw contents in `blobs`, and how many bytes came.

    `message` has the raw contents too where that is cheaper than leaving them out.
    """

    message: pb.ModelInferRequest
    blobs: Sequence[bytes | memoryview]
    size: int


def read_infer(data: bytes) -> InferRequest | InvalidRequest:
    """Return the request in `data`, or the error that it is.

    A deserialiser can't raise: gRPC would answer UNKNOWN. Views in `blobs` keep `data` alive, and
    may begin at any address.
    """
    parts = _split_raw_contents(data) if len(data) >= WALKED_BYTES else None
    try:
        if parts is not None:
            rest, blobs = parts
            return InferRequest(pb.ModelInferRequest.FromString(rest), blobs, len(data))
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return malformed_request(MODEL_INFER)
    return InferRequest(message, message.raw_input_contents, len(data))


# ---------------------------------------------------------------- the walk


def _split_raw_contents(data: bytes) -> tuple[bytes, list[memoryview]] | None:
    """Return the message without its raw contents, and views of those; None: protobuf decides.

    Every field of a ModelInferRequest has a tag of one byte and a length. Anything else, or a
    length that leads too far, is left to protobuf.
    """
    view = memoryview(data)
    rest: list[memoryview] = []
    blobs: list[memoryview] = []
    at, kept = 0, 0  # the bytes from `kept` to `at` belong to the rest
    for _ in range(FIELDS_MAX):
        if at == len(data):
            rest.append(view[kept:])
            return (b"".join(rest), blobs) if blobs else None
        tag = data[at]
        found = _value_extent(data, at + 1) if tag & 7 == _LENGTH and 8 <= tag < 0x80 else None
        if found is None:
            return None
        begin, end = found
        if tag == _RAW:
            blobs.append(view[begin:end])
            rest.append(view[kept:at])
            kept = end
        at = end
    return None


def _value_extent(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the value whose length stands at `at` begins and ends; None: beyond the data."""
    length = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            return None
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            end = at + length
            return (at, end) if end <= len(data) else None
    return None

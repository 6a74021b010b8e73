"""Wire bytes to numpy arrays and back. Pure.

Decoding raw contents copies nothing: the array is a read-only view of the message's bytes. Shapes
are checked against the bytes before anything is allocated, so a declared shape costs nothing.
Source: the Open Inference Protocol, version 2.
"""

import functools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb

Array = NDArray[Any]
Blob = bytes | memoryview

BYTES: Final = "BYTES"
RANK_MAX: Final = 32

_ELEMENTS_MAX: Final = 2**48

_NUMPY: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        BYTES: np.dtype("O"),
    }
)
_DATATYPE: Final = MappingProxyType({dtype: name for name, dtype in _NUMPY.items()})

# FP16 and BF16 have no typed field: they travel raw only.
_TYPED_FIELD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        BYTES: "bytes_contents",
    }
)

DATATYPES: Final = tuple(_NUMPY)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; of BYTES, an object array of `bytes`."""

    name: str
    datatype: str
    array: Array


# ---------------------------------------------------------------- datatypes and sizes


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """Return the little-endian numpy dtype of an OIP datatype; object for BYTES.

    Raises InvalidTensor for an unknown datatype.
    """
    try:
        return _NUMPY[datatype]
    except KeyError:
        raise InvalidTensor(
            f"unknown datatype '{datatype}', expected one of {', '.join(DATATYPES)}"
        ) from None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the OIP datatype of a numpy dtype; strings and objects are BYTES.

    Raises InvalidTensor for a dtype the protocol has no name for.
    """
    if dtype.kind in "OSU":
        return BYTES
    try:
        return _DATATYPE[dtype.newbyteorder("<")]
    except KeyError:
        raise InvalidTensor(f"numpy dtype '{dtype}' has no datatype in the protocol") from None


def travels_typed(datatype: str) -> bool:
    """Return whether the protocol has a typed field for a datatype."""
    return datatype in _TYPED_FIELD


def elements_of(shape: Sequence[int]) -> int:
    """Return how many elements a shape holds.

    Raises InvalidTensor for a size below 0, too many dimensions, or more than fits any memory.
    """
    if len(shape) > RANK_MAX:
        raise InvalidTensor(f"shape has {len(shape)} dimensions, at most {RANK_MAX} are allowed")
    if any(size < 0 for size in shape):
        raise InvalidTensor(f"shape {list(shape)} has a negative size")
    # Also of a shape without elements: numpy refuses [0, 2**62] for its other size.
    if math.prod(max(size, 1) for size in shape) > _ELEMENTS_MAX:
        raise InvalidTensor(f"shape {list(shape)} is too large")
    return math.prod(shape)


# ---------------------------------------------------------------- raw


def from_raw(name: str, datatype: str, shape: Sequence[int], blob: Blob) -> Array:
    """Return a view of `blob` as an array of `shape`; for BYTES, a new object array.

    The view is read-only, and as aligned as `blob` is. Raises InvalidTensor where the size doesn't
    match, naming the tensor.
    """
    sizes = tuple(shape)
    if datatype == BYTES:
        return _object_array(_split_bytes(name, blob, elements_of(sizes)), sizes)
    expected = _raw_bytes(datatype, sizes)
    if len(blob) != expected:
        raise InvalidTensor(
            f"'{name}' {datatype} {list(sizes)} takes {expected} raw bytes, got {len(blob)}"
        )
    if datatype == "BOOL" and np.frombuffer(blob, np.uint8).max(initial=0) > 1:
        raise InvalidTensor(f"'{name}' BOOL has a byte other than 0 and 1")
    return np.ndarray(sizes, _NUMPY[datatype], blob)


# Remembered: callers send few shapes, and to check one costs more than to look it up.
@functools.lru_cache(maxsize=4096)
def _raw_bytes(datatype: str, shape: tuple[int, ...]) -> int:
    return elements_of(shape) * numpy_dtype(datatype).itemsize


def to_raw(array: Array) -> bytes:
    """Return the array's elements row-major, little-endian, unpadded; BYTES with their lengths."""
    if array.dtype.kind in "OSU":
        return b"".join(_bytes_with_lengths(array))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.tobytes()


def _bytes_with_lengths(array: Array) -> Iterator[bytes]:
    for element in array.ravel():
        data = _as_bytes(element)
        yield struct.pack("<I", len(data))
        yield data


def _split_bytes(name: str, blob: Blob, elements: int) -> list[bytes]:
    # Each element takes four bytes at least: a shape can't ask for more than came.
    if elements * 4 > len(blob):
        raise InvalidTensor(
            f"'{name}' BYTES: {elements} elements take {elements * 4} raw bytes or more, "
            f"got {len(blob)}"
        )
    found: list[bytes] = []
    at = 0
    for _ in range(elements):
        if at + 4 > len(blob):
            raise InvalidTensor(f"'{name}' BYTES: the length of element {len(found)} is cut off")
        (length,) = struct.unpack_from("<I", blob, at)
        at += 4
        if at + length > len(blob):
            raise InvalidTensor(
                f"'{name}' BYTES: element {len(found)} takes {length} bytes, "
                f"{len(blob) - at} are left"
            )
        found.append(bytes(blob[at : at + length]))
        at += length
    if at != len(blob):
        raise InvalidTensor(f"'{name}' BYTES: {len(blob) - at} raw bytes follow the last element")
    return found


# ---------------------------------------------------------------- typed


def from_typed(
    name: str, datatype: str, shape: Sequence[int], contents: pb.InferTensorContents
) -> Array:
    """Return a new array with the typed elements.

    Raises InvalidTensor where another field than the datatype's is set, the count doesn't match, or
    a value lies outside the datatype's range.
    """
    dtype = numpy_dtype(datatype)
    field = _TYPED_FIELD.get(datatype)
    if field is None:
        raise InvalidTensor(f"'{name}' {datatype} travels raw only, got typed contents")
    strays = [each.name for each, _ in contents.ListFields() if each.name != field]
    if strays:
        raise InvalidTensor(f"'{name}' {datatype} belongs in {field}, got {', '.join(strays)}")
    values = getattr(contents, field)
    elements = elements_of(shape)
    if len(values) != elements:
        raise InvalidTensor(
            f"'{name}' {datatype} {list(shape)} takes {elements} elements, got {len(values)}"
        )
    if datatype == BYTES:
        return _object_array(values, shape)
    return _narrow(name, datatype, np.array(values, dtype=_wire_dtype(dtype)), dtype).reshape(shape)


def to_typed(array: Array) -> pb.InferTensorContents:
    """Return the elements in their datatype's field. Raises InvalidTensor for FP16 and BF16."""
    datatype = datatype_of(array.dtype)
    field = _TYPED_FIELD.get(datatype)
    if field is None:
        raise InvalidTensor(f"{datatype} travels raw only")
    flat = array.ravel()
    values = [_as_bytes(each) for each in flat] if datatype == BYTES else flat.tolist()
    contents = pb.InferTensorContents()
    getattr(contents, field).extend(values)
    return contents


def _wire_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the field that carries `dtype`: small integers travel in 32 bits."""
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.dtype(f"<{dtype.kind}4")
    return dtype


def _narrow(name: str, datatype: str, values: Array, dtype: np.dtype[Any]) -> Array:
    narrow = values.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(narrow, values):
        worst = values[narrow != values][0]
        raise InvalidTensor(f"'{name}' {datatype}: value {worst} is out of range")
    return narrow


# ---------------------------------------------------------------- whole messages


def decode_inputs(request: pb.ModelInferRequest) -> list[Tensor]:
    """Return the request's inputs in order; raw ones as views of the message's bytes.

    Raises InvalidTensor: raw mixed with typed, a count that doesn't match, or a wrong tensor.
    """
    return _decode_tensors("input", request.inputs, request.raw_input_contents)


def decode_outputs(response: pb.ModelInferResponse) -> list[Tensor]:
    """Return the answer's outputs in order, raw or typed. Raises InvalidTensor."""
    return _decode_tensors("output", response.outputs, response.raw_output_contents)


def _type_of(
    tensor: pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor,
) -> tuple[str, str, Sequence[int]]:
    return tensor.name, tensor.datatype, tensor.shape


def _decode_tensors(
    side: str,
    described: Sequence[
        pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor
    ],
    blobs: Sequence[Blob],
) -> list[Tensor]:
    if not blobs:
        return [
            Tensor(
                each.name,
                each.datatype,
                from_typed(each.name, each.datatype, each.shape, each.contents),
            )
            for each in described
        ]
    # MLServer sets `contents` beside raw ones too: what holds no value contradicts nothing.
    typed = [each.name for each in described if each.contents.ListFields()]
    if typed:
        raise InvalidTensor(f"{side} '{typed[0]}' has typed contents beside raw contents")
    if len(blobs) != len(described):
        raise InvalidTensor(f"{len(described)} {side}s, but {len(blobs)} raw contents")
    return [
        Tensor(each.name, each.datatype, from_raw(*_type_of(each), blob))
        for each, blob in zip(described, blobs, strict=True)
    ]


def encode_inputs(request: pb.ModelInferRequest, tensors: Iterable[Tensor]) -> None:
    """Append raw inputs to `request`."""
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        request.raw_input_contents.append(to_raw(tensor.array))


def encode_outputs(
    response: pb.ModelInferResponse, tensors: Iterable[Tensor], *, raw: bool
) -> None:
    """Append outputs to `response`, `raw` if and only if the request came raw.

    Raises InvalidTensor where a datatype can't travel typed.
    """
    for tensor in tensors:
        output = response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape
        )
        if raw:
            response.raw_output_contents.append(to_raw(tensor.array))
        else:
            output.contents.CopyFrom(to_typed(tensor.array))


# ---------------------------------------------------------------- strings


def _object_array(values: Sequence[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _as_bytes(element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise InvalidTensor(f"a BYTES element is a {type(element).__name__}, expected bytes or str")

"""Elements of tensors as JSON, and back to the bit. Pure.

`data` is row-major; lists in lists are read too. Where JSON has no word:

- numbers that aren't finite are the texts "NaN", "Infinity" and "-Infinity"; a NaN with other bits
  than the usual one says them: "NaN(0x7fc00001)".
- elements of BYTES are texts; those that aren't UTF-8 are {"b64": BASE64}.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from coalmine.tensors import BYTES, Array, Tensor, elements_of, numpy_dtype
from coalmine_client.cli.json_values import number_json

_NAN_BITS: Final = re.compile(r"NaN\(0x([0-9a-f]{1,16})\)")
_NESTED_MAX: Final = 32


def data_json(tensor: Tensor) -> list[Any]:
    """Return the elements, row-major."""
    flat = tensor.array.ravel()
    data = flat.tolist()
    if tensor.datatype == BYTES:
        data = [_bytes_json(each) for each in data]
    elif flat.dtype.kind not in "iub":  # the kind of BF16 is V
        data = [
            each if math.isfinite(each) else _unfinite_json(flat[at], each)
            for at, each in enumerate(data)
        ]
    return data


def _bytes_json(element: bytes) -> str | dict[str, str]:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}


def _unfinite_json(scalar: Any, value: float) -> float | str:
    bits = _bits_dtype(scalar.dtype)
    if math.isnan(value) and scalar.view(bits) != scalar.dtype.type(math.nan).view(bits):
        return f"NaN(0x{int(scalar.view(bits)):x})"
    return number_json(value)


def _bits_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<u{dtype.itemsize}")


def read_data(datatype: str, shape: Any, data: Any) -> Array:
    """Return the elements in their shape; nothing is cut. Raises InvalidTensor, ValueError."""
    dtype = numpy_dtype(datatype)
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ValueError("shape: expected a list of whole numbers")
    flat = list(_flattened(data, _NESTED_MAX))
    if len(flat) != elements_of(shape):
        raise ValueError(f"shape {shape} takes {elements_of(shape)} elements, got {len(flat)}")
    return _READERS.get(dtype.kind, _float_array)(datatype, flat).reshape(shape)


def _flattened(data: Any, depth: int) -> Iterator[Any]:
    if not isinstance(data, list) or not depth:
        raise ValueError("data: expected a list, or lists in lists")
    for each in data:
        if isinstance(each, list):
            yield from _flattened(each, depth - 1)
        else:
            yield each


def _float_array(datatype: str, data: Sequence[Any]) -> Array:
    dtype = numpy_dtype(datatype)
    wide = np.array([as_float(datatype, each) for each in data], np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = wide.astype(dtype)
    lost = np.isinf(narrow.astype(np.float64)) & ~np.isinf(wide)
    if lost.any():
        raise ValueError(f"{datatype} does not reach to {wide[lost][0]}")
    as_bits = narrow.view(_bits_dtype(dtype))
    for at, each in enumerate(data):
        if isinstance(each, str) and (found := _NAN_BITS.fullmatch(each)):
            # As a number it might lose bits on its way.
            as_bits[at] = _check_nan_bits(datatype, dtype, int(found[1], 16))
    return narrow


def as_float(datatype: str, told: Any) -> float:
    """Return a number, or the text for one that JSON has no word for. Raises ValueError."""
    if isinstance(told, str) and (
        told in {"NaN", "Infinity", "-Infinity"} or _NAN_BITS.fullmatch(told)
    ):
        return float(told.partition("(")[0])
    if type(told) not in {int, float}:
        raise ValueError(f"{datatype} expects numbers, got {told!r}")
    try:
        return float(told)
    except OverflowError:
        raise ValueError(f"{datatype} does not reach to {told}") from None


def _check_nan_bits(datatype: str, dtype: np.dtype[Any], bits: int) -> int:
    fits = bits < 2 ** (8 * dtype.itemsize)
    if not fits or not math.isnan(np.array([bits], _bits_dtype(dtype)).view(dtype)[0]):
        raise ValueError(f"0x{bits:x} are not the bits of a NaN of {datatype}")
    return bits


def _integer_array(datatype: str, data: Sequence[Any]) -> Array:
    limits = np.iinfo(numpy_dtype(datatype))
    for each in data:
        if type(each) is not int or not limits.min <= each <= limits.max:
            raise ValueError(f"{datatype} holds {limits.min} to {limits.max}, got {each!r}")
    return np.array(data, numpy_dtype(datatype))


def _boolean_array(datatype: str, data: Sequence[Any]) -> Array:
    for each in data:
        if type(each) is not bool:
            raise ValueError(f"{datatype} expects true or false, got {each!r}")
    return np.array(data, np.bool_)


def _bytes_array(datatype: str, data: Sequence[Any]) -> Array:
    array = np.empty(len(data), object)
    array[:] = [_element_bytes(datatype, each) for each in data]
    return array


def _element_bytes(datatype: str, told: Any) -> bytes:
    if isinstance(told, str):
        return told.encode()  # a lone surrogate is a ValueError
    if isinstance(told, dict) and set(told) == {"b64"} and isinstance(told["b64"], str):
        try:
            return base64.b64decode(told["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{datatype}: not base64: {error}") from None
    raise ValueError(f'{datatype} expects texts or {{"b64": BASE64}}, got {told!r}')


# By numpy's kind of the datatype; floats are `_float_array`.
_READERS: Final[Mapping[str, Callable[[str, Sequence[Any]], Array]]] = {
    "i": _integer_array,
    "u": _integer_array,
    "b": _boolean_array,
    "O": _bytes_array,
}

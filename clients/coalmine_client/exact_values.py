"""Values as the datatype that a model's metadata names, if none of them changes. Pure.

An array with a dtype is converted if each value stays what it is. Python's own numbers have no
dtype: floats are rounded to the model's, as numpy does, and ints must be held exactly.
"""

from typing import Any, Final

import ml_dtypes
import numpy as np

from coalmine.errors import InvalidTensor
from coalmine.tensors import BYTES, numpy_dtype
from coalmine_client.inference_messages import Array

_FRACTION_BITS: Final = {
    np.dtype("f8"): 53,
    np.dtype("f4"): 24,
    np.dtype("f2"): 11,
    np.dtype(ml_dtypes.bfloat16): 8,
}
_NUMBERS: Final = "biuf"


def as_array(name: str, value: Any) -> Array:
    """Return the value as numpy reads it. Raises InvalidTensor for rows of different lengths."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise InvalidTensor(f"input '{name}': no array: {error}") from None
    # numpy's fixed-length bytes would lose the zeros at an element's end.
    return np.array(value, dtype=object) if array.dtype.kind in "SU" else array


def as_datatype(name: str, value: Any, datatype: str) -> Array:
    """Return `value` as an array of `datatype`.

    Raises InvalidTensor, with input, datatype, index and the first value that would change.
    """
    array = as_array(name, value)
    if datatype == BYTES:
        return array
    target = numpy_dtype(datatype)
    if not _is_number(array.dtype):
        raise InvalidTensor(f"input '{name}': {array.dtype} values can't be {datatype}")
    if array.dtype.newbyteorder("<") == target:
        return array
    if not isinstance(value, np.ndarray | np.generic) and array.dtype == np.dtype("f8"):
        _check_exact(name, datatype, array, _may_round(value, array, target))
    else:
        _check_exact(name, datatype, array, _is_exact(array, target))
    return array.astype(target)


def _check_exact(name: str, datatype: str, array: Array, good: Array) -> None:
    if good.all():
        return
    at = tuple(int(each[0]) for each in np.nonzero(~np.atleast_1d(good)))
    worst = np.atleast_1d(array)[at]
    where = f" at {list(at)}" if array.ndim else ""
    raise InvalidTensor(
        f"input '{name}': {datatype} can't hold {worst}{where} exactly; "
        f"where rounding is meant, convert it before: array.astype('{numpy_dtype(datatype)}')"
    )


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _NUMBERS or dtype in _FRACTION_BITS


def _may_round(value: Any, array: Array, target: np.dtype[Any]) -> Array:
    """Return where Python's numbers may be `target`: floats that stay finite, ints exactly."""
    if target not in _FRACTION_BITS:
        return _is_exact(array, target)
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(array.astype(target).astype("f8")) | ~np.isfinite(array)
    given = np.array(value, dtype=object)
    whole = [_is_int_exact(each, target) for each in given.ravel()]
    return np.asarray(is_finite & np.array(whole, dtype=bool).reshape(array.shape))


def _is_int_exact(number: Any, target: np.dtype[Any]) -> bool:
    return not isinstance(number, int) or not number or _fits_fraction(abs(number), target)


def _fits_fraction(size: int, target: np.dtype[Any]) -> bool:
    return (size // (size & -size)).bit_length() <= _FRACTION_BITS[target]


def _is_exact(array: Array, target: np.dtype[Any]) -> Array:
    """Return where each value is one of `target`'s too."""
    with np.errstate(over="ignore", invalid="ignore"):
        if target in _FRACTION_BITS:
            return _is_exact_float(array, target)
        if target.kind == "b":
            return np.asarray((array == 0) | (array == 1))
        return _is_exact_int(array, target)


def _is_exact_float(array: Array, target: np.dtype[Any]) -> Array:
    became = array.astype(target).astype("f8")
    if array.dtype.kind not in "iu":
        was = array.astype("f8")
        return np.asarray((became == was) | (np.isnan(became) & np.isnan(was)))
    # Not by converting back: of a float beyond the integer's range that gives anything.
    size = (np.abs(array.astype("i8")) if array.dtype.kind == "i" else array).astype("u8")
    lowest = np.maximum(size & (~size + np.uint64(1)), np.uint64(1))
    has_bits = size // lowest < np.uint64(1 << _FRACTION_BITS[target])
    return np.asarray(has_bits & np.isfinite(became))


def _is_exact_int(array: Array, target: np.dtype[Any]) -> Array:
    bounds = np.iinfo(target)
    if array.dtype.kind == "b":
        return np.ones(array.shape, dtype=bool)
    if array.dtype.kind in "iu":
        known = np.iinfo(array.dtype)
        low, high = max(bounds.min, known.min), min(bounds.max, known.max)
        return np.asarray((array >= low) & (array <= high))
    wide = array.astype("f8")
    is_within = (wide >= float(bounds.min)) & (wide < float(bounds.max + 1))
    return np.asarray((wide == np.floor(wide)) & is_within)

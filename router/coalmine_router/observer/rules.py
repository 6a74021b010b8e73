"""When two arrays count as equal, element by element. Pure.

A rule takes a reference and a candidate of the same dtype and shape, and says how far they differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from coalmine.tensors import Array

WORST_MAX: Final = 8
_TEXT_CHARS_MAX: Final = 200

_BF16: Final = np.dtype(ml_dtypes.bfloat16)


class Tolerance(NamedTuple):
    """A difference is a mismatch where |c - r| > atol + rtol·|r|."""

    rtol: float
    atol: float


# What a datatype's rounding explains; the others have none.
# Source: the defaults of torch.testing.assert_close.
TOLERANCES: Final[Mapping[str, Tolerance]] = MappingProxyType(
    {
        "FP16": Tolerance(1e-3, 1e-5),
        "BF16": Tolerance(1.6e-2, 1e-5),
        "FP32": Tolerance(1.3e-6, 1e-5),
        "FP64": Tolerance(1e-7, 1e-7),
    }
)
_NONE: Final = Tolerance(0.0, 0.0)


class ShapeMismatch(ValueError):
    """Only arrays of equal shape have elements to compare."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element that differs, as text."""

    index: tuple[int, ...]
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two arrays lie apart.

    `max_abs_diff` is over all elements, those within tolerance included; NaN and BYTES have no
    distance and count as 0. `worst` holds those that differ, the worst first, eight at most: a NaN
    on one side only is worse than any distance.
    """

    elements: int
    differing: int = 0
    max_abs_diff: float = 0.0
    kind: Literal["nan", "value"] | None = None
    worst: tuple[Element, ...] = ()


def tolerance(datatype: str, rtol: float | None, atol: float | None) -> Tolerance:
    """Return the tolerance of a datatype, with those that are given in place of its own."""
    own = TOLERANCES.get(datatype, _NONE)
    return Tolerance(own.rtol if rtol is None else rtol, own.atol if atol is None else atol)


def close(reference: Array, candidate: Array, *, rtol: float, atol: float) -> Distance:
    """Return how far `candidate` lies from `reference`, element by element.

    Shapes: equal. A difference is a mismatch where |c - r| > atol + rtol·|r|. NaN equals NaN; an
    infinity equals itself only. Integers, bools and BYTES are compared exactly.
    Raises ShapeMismatch. Source: the rule of numpy.isclose, with the reference on the right.
    """
    if not _is_float(reference):
        return exact(reference, candidate)
    _check_shapes(reference, candidate)
    r, c = _wide(reference), _wide(candidate)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.asarray(np.abs(c - r))
        within = np.asarray(apart <= atol + rtol * np.abs(r))
    if np.isfinite(apart).all():
        return _distance(reference, candidate, ~within, apart)
    same = (c == r) | (np.isnan(c) & np.isnan(r))
    within &= np.isfinite(c) & np.isfinite(r)
    return _distance(reference, candidate, ~(same | within), np.where(same, 0.0, apart))


def exact(reference: Array, candidate: Array) -> Distance:
    """Return where `candidate` is not `reference` to the bit; NaN equals NaN, whatever its bits.

    Shapes: equal. Of floats, 0.0 and -0.0 differ. Raises ShapeMismatch.
    """
    _check_shapes(reference, candidate)
    if _is_float(reference):
        return _exact_floats(reference, candidate)
    differing = np.asarray(reference != candidate)
    return _distance(reference, candidate, differing, _apart_whole(reference, candidate))


def _exact_floats(reference: Array, candidate: Array) -> Distance:
    r, c = _wide(reference), _wide(candidate)
    both_nan = np.isnan(c) & np.isnan(r)
    bits = np.dtype(f"u{reference.dtype.itemsize}")
    differing = (reference.view(bits) != candidate.view(bits)) & ~both_nan
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where((c == r) | both_nan, 0.0, np.abs(c - r))
    return _distance(reference, candidate, np.asarray(differing), apart)


# ---------------------------------------------------------------- elements


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype == _BF16


def _check_shapes(reference: Array, candidate: Array) -> None:
    if reference.shape != candidate.shape:
        raise ShapeMismatch(f"{list(reference.shape)} and {list(candidate.shape)}")


def _wide(array: Array) -> NDArray[np.float64]:
    """Return the values in a type where subtracting two of a narrower one loses nothing."""
    return array.astype(np.float64, copy=False)


def _apart_whole(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """Return the distances of integers and bools; zeros for BYTES."""
    if reference.dtype.kind == "O":
        return np.zeros(reference.shape)
    # As unsigned, high - low is exact even where it overflows the signed type.
    high = np.maximum(reference, candidate).astype(np.uint64)
    low = np.minimum(reference, candidate).astype(np.uint64)
    return np.asarray(high - low, dtype=np.float64)


# ---------------------------------------------------------------- the worst of them


def _distance(
    reference: Array,
    candidate: Array,
    differing: NDArray[np.bool_],
    apart: NDArray[np.float64],
) -> Distance:
    """Return the result; `apart` is NaN where one side alone is NaN."""
    count = int(np.count_nonzero(differing))
    if not count:
        return Distance(reference.size, max_abs_diff=float(apart.max(initial=0.0)))
    order = _worst_first(differing.ravel(), apart.ravel(), min(count, WORST_MAX))
    return Distance(
        elements=reference.size,
        differing=count,
        max_abs_diff=float(np.fmax.reduce(apart, axis=None, initial=0.0)),
        kind="nan" if np.isnan(apart.ravel()[order[0]]) else "value",
        worst=tuple(_element(reference, candidate, int(each)) for each in order),
    )


def _worst_first(
    differing: NDArray[np.bool_], apart: NDArray[np.float64], count: int
) -> NDArray[np.intp]:
    """Return the flat indices of the `count` worst; of equals, the first come first."""
    badness = np.nan_to_num(apart, nan=np.inf, posinf=np.finfo(np.float64).max)
    badness = np.where(differing, badness, -1.0)
    threshold = np.partition(badness, -count)[-count]
    found = np.flatnonzero(badness >= threshold)
    order = np.argsort(-badness[found], kind="stable")[:count]
    return np.asarray(found[order])


def _element(reference: Array, candidate: Array, flat: int) -> Element:
    index = tuple(int(each) for each in np.unravel_index(flat, reference.shape))
    return Element(index, _text(reference[index]), _text(candidate[index]))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value[:_TEXT_CHARS_MAX].decode(errors="backslashreplace")
    return str(value)

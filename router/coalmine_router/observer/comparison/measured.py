"""What a rule returns: how many differ, which rows, and the worst of them as text. Pure.

Rules take a reference and a candidate of the same dtype and of shape (rows, …), with elements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isnan
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from coalmine.tensors import Array
from coalmine_router.observer.comparison.result import Element

WORST_MAX: Final = 8
TEXT_CHARS_MAX: Final = 200
# In float64 both sides of a block, and what is made of them, stay in a core's own cache.
BLOCK: Final = 32_768

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]

_LARGEST: Final = np.finfo(np.float64).max
_BF16: Final = np.dtype(ml_dtypes.bfloat16)


class ShapeMismatch(ValueError):
    """Only arrays of equal shape have elements to compare."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a rule found. `rows_differ` has an element a row; None where no row differs.

    `elements` are those that the rule judges: single values, or vectors. `worst` are those that
    differ, the worst first, eight at most; their indices begin with the row. `max_abs_diff` is over
    all elements, those that match included, under the rules that measure it. `badness` is how bad
    the worst is by a rule's own measure, where it has one: more is worse, infinity the worst.
    """

    elements: int
    differing: int = 0
    max_abs_diff: float = 0.0
    kind: Literal["nan", "value", "label"] | None = None
    worst: tuple[Element, ...] = ()
    rows_differ: Mask | None = None
    score: float | None = None
    badness: float | None = None


def check_shapes(reference: Array, candidate: Array) -> None:
    """Raise ShapeMismatch where the shapes differ, or have no rows."""
    if reference.shape != candidate.shape or not reference.ndim:
        raise ShapeMismatch(f"{list(reference.shape)} and {list(candidate.shape)}")


def is_float(array: Array) -> bool:
    """Return whether the values may be NaN."""
    return array.dtype.kind == "f" or array.dtype == _BF16


def is_half(array: Array) -> bool:
    """Return whether the values are floats of 16 bits, which numpy is slow to calculate with."""
    return array.dtype.itemsize == 2 and is_float(array)


def wide(array: Array) -> Floats:
    """Return the values in a type where subtracting two of a narrower one loses nothing."""
    return array.astype(np.float64, copy=False)


def text(value: Any) -> str:
    """Return a value as people read it, cut where it is long."""
    if isinstance(value, bytes):
        return value[:TEXT_CHARS_MAX].decode(errors="backslashreplace")
    # JSON may hold half a surrogate pair, which no protobuf takes.
    return str(value)[:TEXT_CHARS_MAX].encode(errors="backslashreplace").decode()


def finite(score: float) -> float | None:
    """Return a score that can be written down as a number."""
    return score if np.isfinite(score) else None


def as_badness(badness: float) -> float:
    """Return how bad something is as a number that can be ordered: NaN is the worst."""
    return inf if isnan(badness) else badness


def worst_first(badness: Floats, count: int) -> Places:
    """Return the places of the `count` worst, at most eight; of equals, the first come first.

    NaN is worse than any number.
    """
    count = min(count, WORST_MAX)
    # Of smaller numbers, the greatest badness comes first; NaN stays NaN, and goes before all.
    known = np.where(np.isnan(badness), -np.inf, -np.minimum(badness, _LARGEST))
    if known.size > 4 * WORST_MAX:
        found = np.flatnonzero(known <= np.partition(known, count - 1)[count - 1])
        return found[np.argsort(known[found], kind="stable")[:count]]
    return np.argsort(known, kind="stable")[:count]


def index_of(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the place of an element, as far as `shape` goes."""
    index: list[int] = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return tuple(reversed(index))


# ---------------------------------------------------------------- rules that judge vectors


@dataclass(frozen=True, slots=True)
class Judged:
    """Of some vectors: which differ, how badly, and which because one side alone has NaN."""

    differ: Mask
    badness: Floats
    score: Floats
    nan: Mask | None = None


Judge = Callable[[Array, Array], Judged | None]
Tell = Callable[[Array, Array, float], tuple[str, str]]


def by_vector(
    reference: Array, candidate: Array, judge: Judge, tell: Tell, kind: Literal["value", "label"]
) -> Measured:
    """Return what `judge` finds of the vectors that lie along the last axis.

    It gets a block of them at a time, as shape (vectors, length), and returns None where all match.
    `tell` writes the worst ones: two vectors and their score.
    Shapes: equal, two dimensions at least. Raises ShapeMismatch.
    """
    check_shapes(reference, candidate)
    shape = reference.shape
    if not reference.size:
        return Measured(0)
    r, c = reference.reshape(-1, shape[-1]), candidate.reshape(-1, shape[-1])
    step = max(1, BLOCK // shape[-1])
    blocks = [(at, judge(r[at : at + step], c[at : at + step])) for at in range(0, len(r), step)]
    found = [(at, judged) for at, judged in blocks if judged is not None and judged.differ.any()]
    if not found:
        return Measured(len(r))
    vectors = _Vectors(r, c, shape[:-1], _joined(found, len(r)))
    return vectors.measured(tell, kind)


def _joined(found: list[tuple[int, Judged]], vectors: int) -> Judged:
    differ, nan = np.zeros(vectors, bool), np.zeros(vectors, bool)
    badness, score = np.full(vectors, -np.inf), np.zeros(vectors)
    for at, judged in found:
        place = slice(at, at + len(judged.differ))
        differ[place], score[place] = judged.differ, judged.score
        badness[place] = np.where(judged.differ, judged.badness, -np.inf)
        if judged.nan is not None:
            nan[place] = judged.nan
    badness[nan] = np.nan
    return Judged(differ, badness, score, nan)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Both sides, with what was judged; `shape` is that of the vectors in the array."""

    reference: Array
    candidate: Array
    shape: tuple[int, ...]
    judged: Judged

    def measured(self, tell: Tell, kind: Literal["value", "label"]) -> Measured:
        differ = self.judged.differ
        count = int(np.count_nonzero(differ))
        order = [int(each) for each in worst_first(self.judged.badness, count)]
        is_nan = self._is_nan(order[0])
        return Measured(
            elements=len(differ),
            differing=count,
            kind="nan" if is_nan else kind,
            worst=tuple(self._element(at, tell) for at in order),
            rows_differ=np.asarray(differ.reshape(self.shape[0], -1).any(axis=1)),
            score=None if is_nan else finite(float(self.judged.score[order[0]])),
            badness=as_badness(float(self.judged.badness[order[0]])),
        )

    def _is_nan(self, at: int) -> bool:
        return self.judged.nan is not None and bool(self.judged.nan[at])

    def _element(self, at: int, tell: Tell) -> Element:
        r, c, index = self.reference[at], self.candidate[at], index_of(at, self.shape)
        if not self._is_nan(at):
            return Element(index, *tell(r, c, float(self.judged.score[at])))
        first = int(np.flatnonzero(np.isnan(r) != np.isnan(c))[0])
        return Element((*index, first), text(r[first]), text(c[first]))

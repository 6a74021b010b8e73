"""The result of a rule: how many elements differ, which rows, and the worst as text. Pure.

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
# In float64 both sides of a block, and all intermediate arrays, fit in a core's own cache.
BLOCK: Final = 32_768

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]

_LARGEST: Final = np.finfo(np.float64).max
_BF16: Final = np.dtype(ml_dtypes.bfloat16)


class ShapeMismatch(ValueError):
    """Only arrays of equal shape have elements to compare."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The result of a rule. `rows_differ` has an element a row; it is None where no row differs.

    `elements` counts what the rule judges: single values, or vectors. `worst` holds those that
    differ, the worst first, eight at most; their indices begin with the row. `max_abs_diff` is over
    all elements, including those that match, for rules that measure it. `badness` is how bad the
    worst is by the rule's own measure: more is worse, infinity the worst.
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


def as_float(array: Array) -> Floats:
    """Return the values as float64, where subtracting two of a narrower type loses nothing."""
    return array.astype(np.float64, copy=False)


def as_text(value: Any) -> str:
    """Return a value as text for people, cut where it is long."""
    if isinstance(value, bytes):
        return value[:TEXT_CHARS_MAX].decode(errors="backslashreplace")
    # JSON may hold half a surrogate pair, which no protobuf takes.
    return str(value)[:TEXT_CHARS_MAX].encode(errors="backslashreplace").decode()


def finite_score(score: float | None) -> float | None:
    """Return a score; None where JSON has no number for it."""
    return float(score) if score is not None and np.isfinite(score) else None


def orderable_badness(badness: float) -> float:
    """Return a badness that can be ordered: NaN becomes infinity, the worst."""
    return inf if isnan(badness) else badness


def worst_first(badness: Floats, count: int) -> Places:
    """Return the places of the `count` worst, eight at most; equals stay in their order.

    NaN is worse than any number.
    """
    count = min(count, WORST_MAX)
    # Negated, so that the greatest badness sorts first, and NaN, as -inf, before all.
    known = np.where(np.isnan(badness), -np.inf, -np.minimum(badness, _LARGEST))
    if known.size > 4 * WORST_MAX:
        found = np.flatnonzero(known <= np.partition(known, count - 1)[count - 1])
        return found[np.argsort(known[found], kind="stable")[:count]]
    return np.argsort(known, kind="stable")[:count]


def index_of(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of an element in an array of `shape`."""
    index: list[int] = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return tuple(reversed(index))


# ---------------------------------------------------------------- rules that judge vectors


@dataclass(frozen=True, slots=True)
class VectorJudgement:
    """Which vectors differ, how badly, and in which one side alone has NaN."""

    differ: Mask
    badness: Floats
    score: Floats
    nan: Mask | None = None


JudgeVectors = Callable[[Array, Array], VectorJudgement | None]
WorstTexts = Callable[[Array, Array, float], tuple[str, str]]


def result_by_vector(
    reference: Array,
    candidate: Array,
    judge: JudgeVectors,
    texts: WorstTexts,
    kind: Literal["value", "label"],
) -> RuleResult:
    """Return what `judge` finds of the vectors along the last axis.

    `judge` gets a block of vectors at a time, as shape (vectors, length), and returns None where
    all match. `texts` returns two vectors, given with their score, as text.
    Shapes: equal, two dimensions at least. Raises ShapeMismatch.
    """
    check_shapes(reference, candidate)
    shape = reference.shape
    if not reference.size:
        return RuleResult(0)
    r, c = reference.reshape(-1, shape[-1]), candidate.reshape(-1, shape[-1])
    step = max(1, BLOCK // shape[-1])
    blocks = [(at, judge(r[at : at + step], c[at : at + step])) for at in range(0, len(r), step)]
    found = [
        (at, judgement)
        for at, judgement in blocks
        if judgement is not None and judgement.differ.any()
    ]
    if not found:
        return RuleResult(len(r))
    vectors = _Vectors(r, c, shape[:-1], _joined_judgement(found, len(r)))
    return vectors.result(texts, kind)


def _joined_judgement(found: list[tuple[int, VectorJudgement]], vectors: int) -> VectorJudgement:
    differ, nan = np.zeros(vectors, bool), np.zeros(vectors, bool)
    badness, score = np.full(vectors, -np.inf), np.zeros(vectors)
    for at, judgement in found:
        place = slice(at, at + len(judgement.differ))
        differ[place], score[place] = judgement.differ, judgement.score
        badness[place] = np.where(judgement.differ, judgement.badness, -np.inf)
        if judgement.nan is not None:
            nan[place] = judgement.nan
    badness[nan] = np.nan
    return VectorJudgement(differ, badness, score, nan)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Both sides and their judgement; `shape` is the array's without its last axis."""

    reference: Array
    candidate: Array
    shape: tuple[int, ...]
    judgement: VectorJudgement

    def result(self, texts: WorstTexts, kind: Literal["value", "label"]) -> RuleResult:
        differ = self.judgement.differ
        count = int(np.count_nonzero(differ))
        order = [int(each) for each in worst_first(self.judgement.badness, count)]
        is_nan = self._is_nan_at(order[0])
        return RuleResult(
            elements=len(differ),
            differing=count,
            kind="nan" if is_nan else kind,
            worst=tuple(self._element_at(at, texts) for at in order),
            rows_differ=np.asarray(differ.reshape(self.shape[0], -1).any(axis=1)),
            score=None if is_nan else finite_score(self.judgement.score[order[0]]),
            badness=orderable_badness(float(self.judgement.badness[order[0]])),
        )

    def _is_nan_at(self, at: int) -> bool:
        return self.judgement.nan is not None and bool(self.judgement.nan[at])

    def _element_at(self, at: int, texts: WorstTexts) -> Element:
        r, c, index = self.reference[at], self.candidate[at], index_of(at, self.shape)
        if not self._is_nan_at(at):
            return Element(index, *texts(r, c, float(self.judgement.score[at])))
        first = int(np.flatnonzero(np.isnan(r) != np.isnan(c))[0])
        return Element((*index, first), as_text(r[first]), as_text(c[first]))

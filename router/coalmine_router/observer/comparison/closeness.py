"""Rules that judge element by element: close, exact, relative. Pure.

Large arrays are compared a block at a time, so that intermediate arrays stay in the cache.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from coalmine.tensors import Array
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.rule_result import (
    BLOCK,
    WORST_MAX,
    Floats,
    Mask,
    Places,
    RuleResult,
    as_float,
    as_text,
    check_shapes,
    index_of,
    is_float,
    worst_first,
)


class Tolerance(NamedTuple):
    """A difference is a mismatch where |c - r| > atol + rtol·|r|."""

    rtol: float
    atol: float


# What a datatype's rounding explains; other datatypes have no tolerance.
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

_NO_FLOATS: Final = np.zeros(0)

# An infinite distance counts as this one; only NaN on one side alone is worse.
_LARGEST: Final = float(np.finfo(np.float64).max)


def tolerance_of(datatype: str, rtol: float | None, atol: float | None) -> Tolerance:
    """Return a datatype's tolerance; a given rtol or atol replaces its own."""
    own = TOLERANCES.get(datatype, _NONE)
    return Tolerance(own.rtol if rtol is None else rtol, own.atol if atol is None else atol)


@np.errstate(invalid="ignore", over="ignore")
def close(reference: Array, candidate: Array, *, rtol: float, atol: float) -> RuleResult:
    """Return how far `candidate` lies from `reference`, element by element.

    Shapes: both (rows, …), equal. A difference is a mismatch where |c - r| > atol + rtol·|r|,
    calculated in float64. NaN equals NaN; an infinity equals itself only. Integers, bools and BYTES
    are compared exactly.
    Raises ShapeMismatch. Source: the rule of numpy.isclose, with the reference on the right.
    """
    if not is_float(reference):
        return exact(reference, candidate)

    def compare_block(r: Array, c: Array) -> _Block:
        wide_r, wide_c = as_float(r), as_float(c)
        apart = np.abs(wide_c - wide_r)
        largest = float(apart.max())
        if largest <= atol:  # so nothing is NaN
            return _Block(largest)
        return _block_beyond(wide_r, wide_c, apart, largest, atol + rtol * np.abs(wide_r))

    return _element_wise(reference, candidate, compare_block)


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def relative(reference: Array, candidate: Array, *, most: float, floor: float) -> RuleResult:
    """Return how far `candidate` lies from `reference`, as shares of the reference.

    Shapes: both (rows, …), equal. A difference is a mismatch where |c - r| > most·max(|r|, floor),
    calculated in float64: what is measured against is the reference alone. NaN equals NaN; an
    infinity equals itself only. The score is the largest |c - r| / max(|r|, floor).
    Raises ShapeMismatch.
    """

    def compare_block(r: Array, c: Array) -> _Block:
        wide_r, wide_c = as_float(r), as_float(c)
        apart = np.abs(wide_c - wide_r)
        scale = np.maximum(np.abs(wide_r), floor)
        found = _block_beyond(wide_r, wide_c, apart, float(apart.max()), most * scale)
        if found.places is None:
            return found
        size = _values_at(scale, found.places)
        shares = np.where(np.isinf(size), np.inf, found.badness / size)
        return found._replace(badness=np.where(np.isnan(found.badness), np.nan, shares))

    return _element_wise(reference, candidate, compare_block, has_score=True)


@np.errstate(invalid="ignore", over="ignore")
def exact(reference: Array, candidate: Array) -> RuleResult:
    """Return where `candidate` is not `reference` to the bit; NaN equals NaN, whatever its bits.

    Shapes: both (rows, …), equal. Of floats, 0.0 and -0.0 differ. Raises ShapeMismatch.
    """
    return _element_wise(reference, candidate, _bit_block if is_float(reference) else _value_block)


# ---------------------------------------------------------------- a block


class _Block(NamedTuple):
    """Where a block differs, and how badly: NaN where one side alone is NaN.

    `places` is None where nothing differs.
    """

    max_abs_diff: float
    places: Places | None = None
    badness: Floats = _NO_FLOATS


def _block_beyond(r: Floats, c: Floats, apart: Floats, largest: float, allowed: Floats) -> _Block:
    within = apart <= allowed
    if np.isfinite(largest):
        return _block_of_differences(largest, ~within, apart)
    same = (c == r) | (np.isnan(c) & np.isnan(r))
    apart = np.where(same, 0.0, apart)
    within &= np.isfinite(c) & np.isfinite(r)
    return _block_of_differences(float(np.fmax.reduce(apart)), ~(same | within), apart)


def _block_of_differences(largest: float, differ: Mask, apart: Floats) -> _Block:
    # Where every difference is NaN, there is no largest.
    largest = 0.0 if np.isnan(largest) else largest
    places = np.flatnonzero(differ)
    return _Block(largest, places, _values_at(apart, places)) if places.size else _Block(largest)


def _bit_block(r: Array, c: Array) -> _Block:
    bits = np.dtype(f"u{r.dtype.itemsize}")
    places = np.flatnonzero(r.view(bits) != c.view(bits))
    if not places.size:
        return _Block(0.0)
    wide_r, wide_c = as_float(_values_at(r, places)), as_float(_values_at(c, places))
    apart = np.abs(wide_c - wide_r)
    largest = float(apart.max())
    if np.isfinite(largest):
        return _Block(largest, places, apart)
    both_nan = np.isnan(wide_c) & np.isnan(wide_r)
    apart = np.where((wide_c == wide_r) | both_nan, 0.0, apart)
    found = _block_of_differences(float(np.fmax.reduce(apart)), ~both_nan, apart)
    return found if found.places is None else found._replace(places=places[found.places])


def _value_block(r: Array, c: Array) -> _Block:
    """Return where integers, bools or BYTES differ; BYTES have no distance."""
    places = np.flatnonzero(r != c)
    if not places.size:
        return _Block(0.0)
    if r.dtype.kind == "O":
        return _Block(0.0, places, np.zeros(places.size))
    # As unsigned, high - low is exact even where it overflows the signed type.
    high = np.maximum(_values_at(r, places), _values_at(c, places)).astype(np.uint64)
    low = np.minimum(_values_at(r, places), _values_at(c, places)).astype(np.uint64)
    apart = (high - low).astype(np.float64)
    return _Block(float(apart.max()), places, apart)


def _values_at(values: Array, places: Places) -> Array:
    return values if places.size == values.size else values[places]


# ---------------------------------------------------------------- over all blocks


def _element_wise(
    reference: Array,
    candidate: Array,
    block: Callable[[Array, Array], _Block],
    *,
    has_score: bool = False,
) -> RuleResult:
    check_shapes(reference, candidate)
    rows = reference.shape[0]
    tally = _BlockSum(rows, reference.size // rows if rows else 0)
    for at, r, c in _blocks(reference.reshape(-1), candidate.reshape(-1)):
        tally.add_block(at, block(r, c))
    return tally.result(reference, candidate, has_score=has_score)


def _blocks(r: Array, c: Array) -> Iterator[tuple[int, Array, Array]]:
    for at in range(0, r.size, BLOCK):
        yield at, r[at : at + BLOCK], c[at : at + BLOCK]


class _BlockSum:
    """Adds up blocks, and keeps the eight worst elements of all."""

    def __init__(self, rows: int, row_elements: int) -> None:
        self._rows = rows
        self._row_elements = row_elements
        self._rows_differ: Mask | None = None
        self._differing = 0
        self._max_abs_diff = 0.0
        # Worst first: how bad, and where.
        self._worst: list[tuple[float, int]] = []

    def add_block(self, at: int, found: _Block) -> None:
        """Add the block that begins at flat index `at`."""
        self._max_abs_diff = max(self._max_abs_diff, found.max_abs_diff)
        if found.places is None:
            return
        self._differing += len(found.places)
        self._mark_rows(at + found.places)
        self._keep_worst(at + found.places, found.badness)

    def _mark_rows(self, places: Places) -> None:
        """Mark the rows of places, which are sorted."""
        if self._rows_differ is None:
            self._rows_differ = np.zeros(self._rows, bool)
        first, last = places[0] // self._row_elements, places[-1] // self._row_elements
        if places.size <= last - first + 1:
            self._rows_differ[places // self._row_elements] = True
            return
        # A row begins at each: those where the next place that differs is their own.
        begins = np.arange(first, last + 1) * self._row_elements
        following = places[np.searchsorted(places, begins)]
        self._rows_differ[following // self._row_elements] = True

    def _keep_worst(self, places: Places, badness: Floats) -> None:
        if len(self._worst) == WORST_MAX:
            beats = np.flatnonzero(~(badness <= self._worst[-1][0]))
            places, badness = places[beats], badness[beats]
        if not places.size:
            return
        known = np.where(np.isnan(badness), np.inf, np.minimum(badness, _LARGEST))
        order = worst_first(known, places.size)
        found = [(float(known[each]), int(places[each])) for each in order]
        # Sorting is stable: of equals, the first come first.
        self._worst = sorted([*self._worst, *found], key=lambda each: -each[0])[:WORST_MAX]

    def result(self, reference: Array, candidate: Array, *, has_score: bool) -> RuleResult:
        """Return the sum; the score is the worst badness."""
        if self._rows_differ is None:
            return RuleResult(reference.size, max_abs_diff=self._max_abs_diff)
        worst = self._worst[0][0]
        return RuleResult(
            elements=reference.size,
            differing=self._differing,
            max_abs_diff=self._max_abs_diff,
            kind="nan" if worst == np.inf else "value",
            worst=tuple(_element_at(reference, candidate, at) for _, at in self._worst),
            rows_differ=self._rows_differ,
            score=worst if has_score and worst < _LARGEST else None,
            badness=worst if has_score else None,
        )


def _element_at(reference: Array, candidate: Array, flat: int) -> Element:
    index = index_of(flat, reference.shape)
    return Element(index, as_text(reference[index]), as_text(candidate[index]))

"""Vectors with NaN: on one side alone NaN is a difference, on both sides it is left out. Pure."""

from typing import NamedTuple

import numpy as np

from coalmine.tensors import Array
from coalmine_router.observer.comparison.rule_result import Mask, is_float


class WithoutNan(NamedTuple):
    """Both sides, with `fill` where both are NaN.

    `apart`: the vectors in which one side alone has NaN somewhere. `empty`: those that are NaN on
    both sides throughout. Both are None where there is no NaN at all.
    """

    reference: Array
    candidate: Array
    apart: Mask | None = None
    empty: Mask | None = None


def without_nan(reference: Array, candidate: Array, *, fill: float) -> WithoutNan:
    """Return vectors without NaN, for those that have none on one side alone.

    Shapes: both (vectors, length), equal. Values of 16 bits come back as float64.
    """
    if not is_float(reference):
        return WithoutNan(reference, candidate)
    # The minimum is NaN where any value is, and finding it makes no array.
    if not (np.isnan(reference.min()) or np.isnan(candidate.min())):
        return WithoutNan(reference, candidate)
    r, c = np.isnan(reference), np.isnan(candidate)
    dtype = reference.dtype
    return WithoutNan(
        np.where(r, dtype.type(fill), reference),
        np.where(c, dtype.type(fill), candidate),
        np.asarray((r != c).any(axis=-1)),
        np.asarray((r & c).all(axis=-1)),
    )

"""The sample inputs on which two forms of a module are compared, and when they are alike."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coalmine.errors import ModelFailed
from coalmine.tensors import BYTES, Array, numpy_dtype
from coalmine_server.runtime.execution import VARIABLE_SIZE
from coalmine_server.signature import Arrays, Signature, TensorSpec

_SEED: Final = 0
_ROWS: Final = (1, 2, 3)
# Of an output's largest value: kernels that are fused round otherwise, in half precision more.
_ROUNDING: Final = 1e-4
_ROUNDING_HALF: Final = 0.02
_HALF: Final = ("float16", "bfloat16")

Run = Callable[[Arrays], Sequence[Array]]
SampleAnswer = tuple[Array, ...] | None  # None: the module failed


def answer_samples(run: Run, signature: Signature) -> list[SampleAnswer]:
    """Run all samples, which are always the same; return the answers."""
    return [_run_sample(run, each) for each in _sample_inputs(signature)]


def are_alike(one: Sequence[SampleAnswer], other: Sequence[SampleAnswer]) -> bool:
    """Return whether two forms answer alike; false where no sample was answered."""
    answered = any(each is not None for each in one)
    return answered and all(_is_alike(a, b) for a, b in zip(one, other, strict=True))


def _sample_inputs(signature: Signature) -> Iterator[Arrays]:
    """Zeros and random values by turns: floats from the normal distribution, integers 0 and 1."""
    rng = np.random.default_rng(_SEED)
    for rows in sorted({min(each, signature.rows_max or 1) for each in _ROWS}):
        yield tuple(_zeros_like(each) for each in random_inputs(signature, rows, rng))
        yield random_inputs(signature, rows, rng)
    if any(spec.optional for spec in signature.inputs):
        given = zip(signature.inputs, random_inputs(signature, 1, rng), strict=True)
        yield tuple(None if spec.optional else each for spec, each in given)


def random_inputs(signature: Signature, rows: int, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return random inputs, the optional ones too; variable sizes are VARIABLE_SIZE.

    Floats are drawn from the normal distribution, integers from 0 and 1: they may be indices.
    """
    lead = (rows,) if signature.batched else ()
    return tuple(
        _random_values(spec, (*lead, *_fixed_sizes(spec.shape[signature.batched :])), rng)
        for spec in signature.inputs
    )


def _fixed_sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(VARIABLE_SIZE if size < 0 else size for size in shape)


def _random_values(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if spec.datatype == BYTES:
        return rng.integers(0, 2, shape).astype(str).astype(object)
    dtype = numpy_dtype(spec.datatype)
    whole = dtype.kind in "iub"
    values = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def _zeros_like(array: Array) -> Array:
    if array.dtype.hasobject:
        return np.full(array.shape, "", dtype=object)
    return np.zeros_like(array)


def _run_sample(run: Run, inputs: Arrays) -> SampleAnswer:
    """Return copies: an output may be the model's own memory, and a model may keep its input."""
    try:
        return tuple(each.copy() for each in run(inputs))
    except ModelFailed:
        return None


def _is_alike(one: SampleAnswer, other: SampleAnswer) -> bool:
    if one is None or other is None:
        return one is other
    return all(_is_equal(a, b) for a, b in zip(one, other, strict=True))


def _is_equal(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject or one.dtype.kind in "iub":
        return bool(np.array_equal(one, other))
    part = _ROUNDING_HALF if one.dtype.name in _HALF else _ROUNDING
    wide, other_wide = _as_float(one), _as_float(other)
    largest = float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
    return np.allclose(wide, other_wide, rtol=0.0, atol=part * largest, equal_nan=True)


def _as_float(array: Array) -> NDArray[np.inexact]:
    return array if array.dtype.kind == "c" else array.astype(np.float64)

"""A try of a program on random values, for its declaration and for rows that are mixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import BYTES, Array
from coalmine_server.runtime.program import Program
from coalmine_server.runtime.samples import random_inputs
from coalmine_server.signature import Signature, TensorSpec, check_outputs

_SEED: Final = 0
_ROWS: Final = 4

# Of the largest value of an output. Kernels round otherwise for other batch sizes, in half
# precision more. Dynamic quantisation scales by the whole batch: 1 to 7 % were seen. A softmax,
# mean or norm over the batch: over 40 %.
_ROUNDING: Final = 0.001
_ROUNDING_HALF: Final = 0.02
_MIXED: Final = 0.2
# Of an output's integers or texts: a class may tip over where two are equally likely.
_MIXED_WHOLE: Final = 0.5
_HALF: Final = ("FP16", "BF16")
_TINY: Final = 1e-300


@dataclass(frozen=True, slots=True)
class TryResult:
    """Warnings of a try; `mixing` says how rows of a batch change each other, if they do."""

    warnings: tuple[str, ...] = ()
    mixing: str = ""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """How an output of a batch differs from what its rows give alone."""

    text: str
    is_mixed: bool  # more than arithmetic explains


def try_random(program: Program, signature: Signature) -> TryResult:
    """Run one row, the most rows, and rows alone and together, always on the same values.

    Floats are drawn from the normal distribution, integers from 0 and 1: they may be indices.
    Raises StartError where the answers are not as declared. A model that fails on such values may
    still be a good one: that is a warning.
    """
    rng = np.random.default_rng(_SEED)
    try:
        for rows in sorted({1, signature.rows_max or 1}):
            _run(program, signature, random_inputs(signature, rows, rng), rows)
        _run_without_optional(program, signature, rng)
        if signature.rows_max > 1:
            return _compare_rows(program, signature, rng)
    except ModelFailed as error:
        return TryResult((f"failed on random values: {error}; only zeros were tried",))
    return TryResult()


def _run(
    program: Program, signature: Signature, inputs: Sequence[Array | None], rows: int
) -> Sequence[Array]:
    """Run copies and return copies: a model may write into its inputs, or answer its own memory."""
    outputs = program.run(tuple(None if each is None else each.copy() for each in inputs))
    try:
        check_outputs(signature, outputs, rows)
    except ModelFailed as error:
        reason = str(error).removeprefix(f"{signature.label}: ")
        raise StartError(f"{signature.label}: on random values, {reason}") from None
    return [each.copy() for each in outputs]


def _run_without_optional(program: Program, signature: Signature, rng: np.random.Generator) -> None:
    if not any(spec.optional for spec in signature.inputs):
        return
    inputs = zip(signature.inputs, random_inputs(signature, 1, rng), strict=True)
    given = [None if spec.optional else each for spec, each in inputs]
    _run(program, signature, given, 1)


# ---------------------------------------------------------------- rows, together and alone


def _compare_rows(program: Program, signature: Signature, rng: np.random.Generator) -> TryResult:
    rows = min(_ROWS, signature.rows_max)
    inputs = random_inputs(signature, rows, rng)
    together = _run(program, signature, inputs, rows)
    alone = [
        _run(program, signature, [each[row : row + 1] for each in inputs], 1) for row in range(rows)
    ]
    again = _run(program, signature, [each[:1] for each in inputs], 1)
    if row_differences(signature, [alone[0]], again):
        return TryResult(("gives another answer each time, so rows could not be compared",))
    return _try_result(row_differences(signature, alone, together))


def _try_result(found: Sequence[RowDifference]) -> TryResult:
    mixed = [each.text for each in found if each.is_mixed]
    if mixed:
        return TryResult(mixing=f"rows of a batch are not kept apart: {mixed[0]}")
    return TryResult(
        tuple(f"an answer depends a little on its batch: {each.text}" for each in found)
    )


# ---------------------------------------------------------------- comparing


def row_differences(
    signature: Signature, alone: Sequence[Sequence[Array]], together: Sequence[Array]
) -> list[RowDifference]:
    """Return the outputs that differ by more than rounding, and how."""
    found = [
        _difference(spec, [each[index] for each in alone], together[index])
        for index, spec in enumerate(signature.outputs)
    ]
    return [each for each in found if each is not None]


def _difference(spec: TensorSpec, alone: Sequence[Array], together: Array) -> RowDifference | None:
    sizes = {each.shape[1:] for each in alone}
    if sizes != {together.shape[1:]}:
        return RowDifference(
            f"output '{spec.name}' has another size than that of a row alone", is_mixed=False
        )
    one, other = np.concatenate(alone), together
    differs = (one != other) & ~((one != one) & (other != other))  # noqa: PLR0124 - what NaN is
    if spec.datatype == BYTES or one.dtype.kind in "iub":
        return _exact_difference(spec, differs)
    parts = np.where(differs, _relative_differences(one, other), 0.0)
    worst = float(parts.max(initial=0.0))
    if worst <= (_ROUNDING_HALF if spec.datatype in _HALF else _ROUNDING):
        return None
    row = int(np.unravel_index(int(parts.argmax()), parts.shape)[0])
    far = f" by {worst:.2g} of the largest value" if np.isfinite(worst) else ", finite or not,"
    return RowDifference(
        f"output '{spec.name}' of row {row} differs{far} from what the row gives alone",
        worst > _MIXED,
    )


def _exact_difference(spec: TensorSpec, differs: NDArray[np.bool_]) -> RowDifference | None:
    count = int(np.count_nonzero(differs))
    if count == 0:
        return None
    text = f"{count} of {differs.size} elements of output '{spec.name}' differ from those alone"
    return RowDifference(text, count > _MIXED_WHOLE * differs.size)


def _relative_differences(one: Array, other: Array) -> NDArray[np.float64]:
    """Return each difference as a part of the largest value; infinite where one is not finite."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        parts = np.abs(one - other) / max(_largest_finite(one), _largest_finite(other), _TINY)
    return np.where(np.isfinite(parts), parts, np.inf)


def _largest_finite(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))

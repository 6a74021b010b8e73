"""A program tried on random values: that it answers as declared, and keeps the rows apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import BYTES, Array
from coalmine_server.runtime.program import Program
from coalmine_server.runtime.samples import drawn
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
class Tried:
    """What is worth a warning; `mixing` says how rows of a batch change each other, if they do."""

    warnings: tuple[str, ...] = ()
    mixing: str = ""


@dataclass(frozen=True, slots=True)
class RowsApart:
    """How an output of a batch differs from what its rows give alone."""

    told: str
    is_mixed: bool  # more than arithmetic explains


def try_random(program: Program, signature: Signature) -> Tried:
    """Return what one row, the most rows, and rows alone and together show; always the same values.

    Floats are drawn from the normal distribution, integers from 0 and 1: they may be indices.
    Raises StartError where the answers are not as declared. A model that fails on such values may
    still be a good one: that is a warning.
    """
    chance = np.random.default_rng(_SEED)
    try:
        for rows in sorted({1, signature.rows_max or 1}):
            _answers(program, signature, drawn(signature, rows, chance), rows)
        _without_optional(program, signature, chance)
        if signature.rows_max > 1:
            return _together_and_alone(program, signature, chance)
    except ModelFailed as error:
        return Tried((f"failed on random values: {error}; only zeros were tried",))
    return Tried()


def _answers(
    program: Program, signature: Signature, inputs: Sequence[Array | None], rows: int
) -> Sequence[Array]:
    """Return copies, of copies: a model may write into its inputs, and answer with its memory."""
    outputs = program.run(tuple(None if each is None else each.copy() for each in inputs))
    try:
        check_outputs(signature, outputs, rows)
    except ModelFailed as error:
        reason = str(error).removeprefix(f"{signature.label}: ")
        raise StartError(f"{signature.label}: on random values, {reason}") from None
    return [each.copy() for each in outputs]


def _without_optional(program: Program, signature: Signature, chance: np.random.Generator) -> None:
    if not any(spec.optional for spec in signature.inputs):
        return
    inputs = zip(signature.inputs, drawn(signature, 1, chance), strict=True)
    given = [None if spec.optional else each for spec, each in inputs]
    _answers(program, signature, given, 1)


# ---------------------------------------------------------------- rows, together and alone


def _together_and_alone(
    program: Program, signature: Signature, chance: np.random.Generator
) -> Tried:
    rows = min(_ROWS, signature.rows_max)
    inputs = drawn(signature, rows, chance)
    together = _answers(program, signature, inputs, rows)
    alone = [
        _answers(program, signature, [each[row : row + 1] for each in inputs], 1)
        for row in range(rows)
    ]
    again = _answers(program, signature, [each[:1] for each in inputs], 1)
    if differences(signature, [alone[0]], again):
        return Tried(("gives another answer each time, so rows could not be compared",))
    return _judged(differences(signature, alone, together))


def _judged(found: Sequence[RowsApart]) -> Tried:
    mixed = [each.told for each in found if each.is_mixed]
    if mixed:
        return Tried(mixing=f"rows of a batch are not kept apart: {mixed[0]}")
    return Tried(tuple(f"an answer depends a little on its batch: {each.told}" for each in found))


# ---------------------------------------------------------------- comparing


def differences(
    signature: Signature, alone: Sequence[Sequence[Array]], together: Sequence[Array]
) -> list[RowsApart]:
    """Return how outputs differ, those that do by more than rounding."""
    found = [
        _apart(spec, [each[index] for each in alone], together[index])
        for index, spec in enumerate(signature.outputs)
    ]
    return [each for each in found if each is not None]


def _apart(spec: TensorSpec, alone: Sequence[Array], together: Array) -> RowsApart | None:
    sizes = {each.shape[1:] for each in alone}
    if sizes != {together.shape[1:]}:
        return RowsApart(
            f"output '{spec.name}' has another size than that of a row alone", is_mixed=False
        )
    one, other = np.concatenate(alone), together
    differs = (one != other) & ~((one != one) & (other != other))  # noqa: PLR0124 - what NaN is
    if spec.datatype == BYTES or one.dtype.kind in "iub":
        return _whole_apart(spec, differs)
    parts = np.where(differs, _parts(one, other), 0.0)
    worst = float(parts.max(initial=0.0))
    if worst <= (_ROUNDING_HALF if spec.datatype in _HALF else _ROUNDING):
        return None
    row = int(np.unravel_index(int(parts.argmax()), parts.shape)[0])
    far = f" by {worst:.2g} of the largest value" if np.isfinite(worst) else ", finite or not,"
    return RowsApart(
        f"output '{spec.name}' of row {row} differs{far} from what the row gives alone",
        worst > _MIXED,
    )


def _whole_apart(spec: TensorSpec, differs: NDArray[np.bool_]) -> RowsApart | None:
    count = int(np.count_nonzero(differs))
    if count == 0:
        return None
    told = f"{count} of {differs.size} elements of output '{spec.name}' differ from those alone"
    return RowsApart(told, count > _MIXED_WHOLE * differs.size)


def _parts(one: Array, other: Array) -> NDArray[np.float64]:
    """Return each difference as a part of the largest value; infinite where one is not finite."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        parts = np.abs(one - other) / max(_largest(one), _largest(other), _TINY)
    return np.where(np.isfinite(parts), parts, np.inf)


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))

"""Running a program: several requests as one batch, and the warm-up. Knows no model format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from coalmine.errors import CoalmineError, ModelFailed, StartError
from coalmine.tensors import Array, numpy_dtype
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Signature, TensorSpec, check_outputs

_log = structlog.get_logger(__name__)

Arrays = Sequence[Array]
Result = Arrays | CoalmineError

# What a variable size is tried with: long enough for most kernels and strides, and still cheap.
VARIABLE_SIZE = 32


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch: a result for each request, in order; monotonic nanoseconds.

    Inputs are gathered from `started_ns` on, the forward runs from `infer_ns` to `output_ns`, and by
    `ended_ns` each request has its own rows.
    """

    results: Sequence[Result]
    started_ns: int
    infer_ns: int
    output_ns: int
    ended_ns: int


def execute(program: Program, signature: Signature, batch: Sequence[Arrays]) -> list[Result]:
    """Return each request's outputs, or the ModelFailed that it earned.

    A batch of several that fails is run again one by one, so that one request's poison reaches
    nobody else.
    """
    try:
        return list(_run(program, signature, batch))
    except ModelFailed as error:
        if len(batch) > 1:
            return [result for each in batch for result in execute(program, signature, [each])]
        _log.warning("model_failed", label=signature.label, exc_info=error)
        return [ModelFailed(f"{signature.label}: {error}")]


def _run(program: Program, signature: Signature, batch: Sequence[Arrays]) -> Sequence[Arrays]:
    if len(batch) == 1:
        outputs = program.run(batch[0])
        check_outputs(signature, outputs, _rows(batch[0]))
        return [outputs]
    sizes = [_rows(each) for each in batch]
    outputs = program.run([np.concatenate(column) for column in zip(*batch, strict=True)])
    check_outputs(signature, outputs, sum(sizes))
    ends = np.cumsum(sizes)[:-1]
    return list(zip(*(np.split(output, ends) for output in outputs), strict=True))


def _rows(arrays: Arrays) -> int:
    return len(arrays[0]) if arrays[0].ndim else 1


# ---------------------------------------------------------------- opening and warm-up


def open_program(
    runtime: Runtime, signature: Signature, config: ModelConfig, data: bytes, *, source: Path
) -> Program:
    """Return the program in `data`, warm as its config asks. Raises StartError, naming `source`."""
    try:
        program = runtime.load(data, [each.name for each in signature.outputs])
        warm(program, signature, config.warmup_sizes, config.warmup.runs)
    except StartError as error:
        raise StartError(f"{source}: {error}") from error
    return program


def warm(program: Program, signature: Signature, sizes: Sequence[int], runs: int) -> None:
    """Run zeros of each batch size `runs` times. Raises StartError where the model fails on them.

    Variable sizes are tried with VARIABLE_SIZE.
    """
    for rows in sizes:
        inputs = [_zeros(spec, rows, batched=signature.batched) for spec in signature.inputs]
        try:
            for _ in range(runs):
                check_outputs(signature, program.run(inputs), rows)
        except ModelFailed as error:
            reason = str(error).removeprefix(f"{signature.label}: ")
            tried = ", ".join(map(_described, signature.inputs, inputs))
            raise StartError(f"{signature.label}: failed on zeros, {tried}: {reason}") from error


def _described(spec: TensorSpec, array: Array) -> str:
    return f"'{spec.name}' {spec.datatype} {list(array.shape)}"


def _zeros(spec: TensorSpec, rows: int, *, batched: bool) -> Array:
    sizes = spec.shape[batched:]
    shape = tuple(VARIABLE_SIZE if size < 0 else size for size in sizes)
    return np.zeros((rows, *shape) if batched else shape, dtype=numpy_dtype(spec.datatype))

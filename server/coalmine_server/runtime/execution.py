"""Runs a program on a batch and writes each request's answer. Knows no model format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, ModelFailed, StartError
from coalmine.tensors import BYTES, Array, numpy_dtype
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Arrays, CheckedRequest, Signature, TensorSpec, check_outputs
from coalmine_server.wire.answers import AnswerWriter

Result = bytes | CoalmineError

# What a variable size is tried with: long enough for most kernels and strides, and still cheap.
VARIABLE_SIZE = 32


@dataclass(frozen=True, slots=True)
class BatchRun:
    """The results of a batch: an answer or an error for each request, in order.

    Monotonic nanoseconds: inputs are gathered from `started_ns` on, the forward runs from
    `infer_ns` to `output_ns`, and by `ended_ns` each request's answer is written. Where the
    requests ran again one by one, the times are the sums over all runs.
    """

    results: Sequence[Result]
    started_ns: int
    infer_ns: int
    output_ns: int
    ended_ns: int


@dataclass(slots=True)
class _RunTimes:
    """How long gathering and forwards took so far."""

    gathering_ns: int = 0
    forward_ns: int = 0


class Execution:
    """A program and how its answers are written. Used by one thread only."""

    def __init__(self, program: Program, signature: Signature, clock: Clock) -> None:
        self._program = program
        self._signature = signature
        self._clock = clock
        self._writer = AnswerWriter(signature)

    def run(self, batch: Sequence[CheckedRequest]) -> BatchRun:
        """Run a batch; return each request's answer, or its ModelFailed.

        Answers are written here, before the program runs again: its outputs may be its own memory.
        A batch of several that fails is run again one by one, so that a request that fails harms no
        other.
        """
        started_ns = self._clock.monotonic_ns()
        times = _RunTimes()
        results = self._run_batch(batch, times)
        infer_ns = started_ns + times.gathering_ns
        output_ns = infer_ns + times.forward_ns
        return BatchRun(results, started_ns, infer_ns, output_ns, self._clock.monotonic_ns())

    def _run_batch(self, batch: Sequence[CheckedRequest], times: _RunTimes) -> list[Result]:
        try:
            outputs = self._run_program(batch, times)
        except ModelFailed as error:
            if len(batch) > 1:
                return [result for each in batch for result in self._run_batch([each], times)]
            return [_labelled_failure(self._signature.label, error)]
        return self._write_answers(batch, outputs)

    def _run_program(self, batch: Sequence[CheckedRequest], times: _RunTimes) -> Sequence[Array]:
        """Run the program on a batch; return its outputs, which are as declared."""
        begun_ns = self._clock.monotonic_ns()
        inputs = batch[0].arrays if len(batch) == 1 else _batch_inputs(batch)
        infer_ns = self._clock.monotonic_ns()
        times.gathering_ns += infer_ns - begun_ns
        try:
            outputs = self._program.run(inputs)
        finally:
            times.forward_ns += self._clock.monotonic_ns() - infer_ns
        rows = batch[0].rows if len(batch) == 1 else sum([each.rows for each in batch])
        check_outputs(self._signature, outputs, rows)
        return outputs

    def _write_answers(
        self, batch: Sequence[CheckedRequest], outputs: Sequence[Array]
    ) -> list[Result]:
        write = self._writer.write
        if len(batch) == 1:
            return [write(batch[0], outputs)]
        results: list[Result] = []
        start = 0
        for each in batch:
            end = start + each.rows
            results.append(write(each, [output[start:end] for output in outputs]))
            start = end
        return results


def _labelled_failure(label: str, error: ModelFailed) -> ModelFailed:
    failed = ModelFailed(f"{label}: {str(error).removeprefix(f'{label}: ')}")
    failed.__cause__ = error  # logged where the request's trace is known
    return failed


def _batch_inputs(batch: Sequence[CheckedRequest]) -> Arrays:
    """Return each input of all requests in one new array: a request's only copy."""
    return tuple(
        None if column[0] is None else np.concatenate(column)
        for column in zip(*[each.arrays for each in batch], strict=True)
    )


# ---------------------------------------------------------------- opening and warm-up


def open_program(
    runtime: Runtime,
    signature: Signature,
    config: ModelConfig,
    data: bytes,
    *,
    source: Path,
    instance: int = 0,
) -> Program:
    """Return the program in `data`, warm as its config asks. Raises StartError, naming `source`.

    `instance` counts the threads of one version: on `device: auto` they take devices in turn.
    """
    try:
        program = runtime.load(data, signature, config.device, instance)
        warm_up(program, signature, config.warmup_sizes, config.warmup.runs)
    except StartError as error:
        raise StartError(f"{source}: {error}") from error
    except MemoryError:
        raise StartError(f"{source}: its declared shapes take more memory than there is") from None
    return program


def warm_up(program: Program, signature: Signature, sizes: Sequence[int], runs: int) -> None:
    """Run zeros of each batch size `runs` times. Raises StartError where the model fails on them.

    Variable sizes are tried with VARIABLE_SIZE, BYTES with empty strings; no input is left out.
    """
    for rows in sizes:
        inputs = tuple(_zeros(spec, rows, batched=signature.batched) for spec in signature.inputs)
        try:
            for _ in range(runs):
                check_outputs(signature, program.run(inputs), rows)
        except ModelFailed as error:
            reason = str(error).removeprefix(f"{signature.label}: ")
            tried = ", ".join(map(_tensor_description, signature.inputs, inputs))
            raise StartError(f"{signature.label}: failed on zeros, {tried}: {reason}") from error


def _tensor_description(spec: TensorSpec, array: Array) -> str:
    return f"'{spec.name}' {spec.datatype} {list(array.shape)}"


def _zeros(spec: TensorSpec, rows: int, *, batched: bool) -> Array:
    sizes = spec.shape[batched:]
    shape = tuple(VARIABLE_SIZE if size < 0 else size for size in sizes)
    whole = (rows, *shape) if batched else shape
    if spec.datatype == BYTES:
        return np.full(whole, "", dtype=object)
    return np.zeros(whole, dtype=numpy_dtype(spec.datatype))

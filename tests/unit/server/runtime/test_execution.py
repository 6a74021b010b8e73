from pathlib import Path

import numpy as np
import pytest
import yaml

from coalmine.errors import ModelFailed, StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, decode_outputs
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.execution import BatchRun, Execution, Result, open_program, warm_up
from coalmine_server.runtime.program import Program
from coalmine_server.signature import Arrays, CheckedRequest, Signature
from tests.doubles.server_parts import FakeProgram, FakeRuntime, FakeTime


def config(max_batch_size: int = 8, shape: str = "[2]", **more: object) -> ModelConfig:
    tensor = f"{{name: x, datatype: FP32, shape: {shape}}}"
    content = yaml.safe_load(
        f"{{platform: pytorch_torchscript, max_batch_size: {max_batch_size}, "
        f"inputs: [{tensor}], outputs: [{tensor}]}}"
    )
    return ModelConfig.model_validate({**content, **more})


SIGNATURE = Signature.of("m", 1, config())


def asked(*arrays: Array | None) -> CheckedRequest:
    first = next(each for each in arrays if each is not None)
    rows = len(first) if first.ndim else 1
    key = tuple(None if each is None else each.shape[1:] for each in arrays)
    return CheckedRequest(arrays, rows, key, outputs=(0,), raw=True)


def rows(*values: float) -> CheckedRequest:
    return asked(np.repeat(np.array(values, dtype="f4")[:, None], 2, axis=1))


def has_negative(inputs: object) -> bool:
    return bool(np.asarray(inputs).min() < 0)


def ran(program: Program, *batch: CheckedRequest, signature: Signature = SIGNATURE) -> BatchRun:
    return Execution(program, signature, FakeTime()).run(batch)


def answer(result: Result) -> Array:
    """Return the only output of an answer."""
    assert isinstance(result, bytes), result
    (output,) = decode_outputs(pb.ModelInferResponse.FromString(result))
    return output.array


def test_several_requests_run_as_one_batch_and_each_gets_its_own_rows() -> None:
    program = FakeProgram()
    results = ran(program, rows(1, 2), rows(3), rows(4, 5)).results
    assert program.runs == [(5, 2)]
    assert [answer(each)[:, 0].tolist() for each in results] == [[2, 4], [6], [8, 10]]


def test_a_single_request_is_run_as_it_came() -> None:
    program = Keeping()
    request = rows(1)
    ran(program, request)
    assert program.inputs[0] is request.arrays


def test_a_batch_is_gathered_into_one_array_for_each_input() -> None:
    program = Keeping()
    ran(program, rows(1), rows(2))
    ((array,),) = program.inputs
    assert array is not None
    assert array.flags.owndata
    assert array.flags.c_contiguous
    assert array[:, 0].tolist() == [1, 2]


def test_an_input_that_no_request_of_the_batch_has_is_absent_from_the_batch() -> None:
    program = Keeping()
    half = np.ones((1, 2), "f4")
    ran(program, asked(half, None), asked(half, None))
    ((given, absent),) = program.inputs
    assert given is not None
    assert given.shape == (2, 2)
    assert absent is None


class Keeping(FakeProgram):
    """Keeps the inputs of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Arrays] = []

    def run(self, inputs: Arrays) -> list[Array]:
        self.inputs.append(inputs)
        return super().run(inputs)


def test_poison_in_a_batch_fails_only_the_request_that_brought_it() -> None:
    program = FakeProgram(fails=has_negative)
    good, bad, fine = ran(program, rows(1), rows(-1), rows(3)).results
    assert isinstance(bad, ModelFailed)
    assert str(bad) == "model 'm' version 1: ValueError: poison"
    assert isinstance(bad.__cause__, ModelFailed), "for the log"
    assert (answer(good)[0, 0], answer(fine)[0, 0]) == (2, 6)
    assert program.runs == [(3, 2), (1, 2), (1, 2), (1, 2)]


def test_an_undeclared_answer_is_a_failure() -> None:
    (failure,) = ran(FakeProgram(), asked(np.zeros((1, 3), "f4"))).results
    assert isinstance(failure, ModelFailed)
    assert str(failure) == (
        "model 'm' version 1: output 'x' is declared FP32 [1, 2], the model gave FP32 [1, 3]"
    )


def test_a_model_that_gives_too_few_rows_fails_alone_and_shifts_nobodys_rows() -> None:
    class Greedy(FakeProgram):
        """Gives one row, whatever comes."""

        def run(self, inputs: Arrays) -> list[Array]:
            return [each[:1] for each in super().run(inputs)]

    one, two = ran(Greedy(), rows(1), rows(2, 3)).results
    assert answer(one)[:, 0].tolist() == [2]
    assert isinstance(two, ModelFailed)


def test_numbers_that_are_not_finite_are_an_answer() -> None:
    (result,) = ran(FakeProgram(), rows(float("nan"), float("inf"))).results
    assert not np.isfinite(answer(result)).any()


def test_a_model_without_a_batch_dimension_gets_what_came() -> None:
    signature = Signature.of("m", 1, config(0, "[]"))
    (result,) = ran(FakeProgram(), asked(np.array(3, dtype="f4")), signature=signature).results
    assert answer(result) == 6


def test_an_answer_is_written_before_the_program_can_change_what_it_gave() -> None:
    class OwnMemory(FakeProgram):
        """Gives the same array each time, with another content."""

        array = np.zeros((1, 2), "f4")

        def run(self, inputs: Arrays) -> list[Array]:
            np.copyto(self.array, super().run(inputs)[0])
            return [self.array]

    execution = Execution(OwnMemory(), SIGNATURE, FakeTime())
    (first,) = execution.run([rows(1)]).results
    execution.run([rows(2)])
    assert answer(first)[0, 0] == 2


def test_the_times_tell_gathering_forward_and_writing_apart() -> None:
    time = FakeTime(step_ns=1)
    found = Execution(FakeProgram(), SIGNATURE, time).run([rows(1), rows(2)])
    assert found.started_ns < found.infer_ns < found.output_ns < found.ended_ns


def test_a_batch_that_was_run_again_one_by_one_took_as_long_as_all_its_runs() -> None:
    time = FakeTime(step_ns=1)
    found = Execution(FakeProgram(fails=has_negative), SIGNATURE, time).run([rows(-1), rows(2)])
    assert found.output_ns - found.infer_ns == 3
    assert found.infer_ns - found.started_ns == 3


# ---------------------------------------------------------------- opening and warm-up


def test_warm_up_runs_each_size_as_often_as_asked() -> None:
    program = FakeProgram()
    warm_up(program, SIGNATURE, (1, 8), 3)
    assert program.runs == [(1, 2)] * 3 + [(8, 2)] * 3


def test_warm_up_gives_variable_sizes_some_length() -> None:
    program = FakeProgram()
    warm_up(program, Signature.of("m", 1, config(shape="[-1, 3]")), (2,), 1)
    assert program.runs == [(2, 32, 3)]


def test_warm_up_leaves_no_input_out_and_fills_text_with_empty_strings() -> None:
    inputs = [
        {"name": "words", "datatype": "BYTES", "shape": [1]},
        {"name": "mask", "datatype": "FP32", "shape": [2], "optional": True},
    ]
    program = Keeping()
    signature = Signature.of("m", 1, config(inputs=inputs))
    with pytest.raises(StartError, match="expected 1 outputs, the model gave 2"):
        warm_up(program, signature, (2,), 1)
    ((words, mask),) = program.inputs
    assert words is not None
    assert mask is not None
    assert words.tolist() == [[""], [""]]
    assert mask.shape == (2, 2)


def test_a_model_that_fails_its_warm_up_is_refused_with_the_shapes_it_was_tried_with() -> None:
    with pytest.raises(StartError) as refusal:
        warm_up(FakeProgram(fails=lambda _: True), SIGNATURE, (8,), 1)
    assert str(refusal.value) == (
        "model 'm' version 1: failed on zeros, 'x' FP32 [8, 2]: ValueError: poison"
    )


def test_opening_loads_then_warms_the_declared_sizes() -> None:
    runtime = FakeRuntime()
    open_program(runtime, SIGNATURE, config(), b"fine", source=Path("m/1/model.pt"))
    assert runtime.programs[0].runs == [(1, 2)] * 3 + [(8, 2)] * 3


def test_opening_names_the_file_that_is_broken() -> None:
    with pytest.raises(StartError, match=r"^m/1/model.pt: not a model$"):
        open_program(FakeRuntime(), SIGNATURE, config(), b"broken", source=Path("m/1/model.pt"))

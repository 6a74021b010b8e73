from pathlib import Path

import numpy as np
import pytest
import yaml

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array
from coalmine_server.config import ModelConfig
from coalmine_server.runtime.execution import execute, open_program, warm
from coalmine_server.signature import Signature
from tests.doubles.server_parts import FakeProgram, FakeRuntime


def config(max_batch_size: int = 8, shape: str = "[2]", **more: object) -> ModelConfig:
    tensor = f"{{name: x, datatype: FP32, shape: {shape}}}"
    content = yaml.safe_load(
        f"{{platform: pytorch_torchscript, max_batch_size: {max_batch_size}, "
        f"inputs: [{tensor}], outputs: [{tensor}]}}"
    )
    return ModelConfig.model_validate({**content, **more})


SIGNATURE = Signature.of("m", 1, config())


def rows(*values: float) -> tuple[Array]:
    return (np.repeat(np.array(values, dtype="f4")[:, None], 2, axis=1),)


def has_negative(inputs: object) -> bool:
    return bool(np.asarray(inputs).min() < 0)


def test_several_requests_run_as_one_batch_and_each_gets_its_own_rows() -> None:
    program = FakeProgram()
    results = execute(program, SIGNATURE, [rows(1, 2), rows(3), rows(4, 5)])
    assert program.runs == [(5, 2)]
    assert [result[0][:, 0].tolist() for result in results] == [[2, 4], [6], [8, 10]]  # type: ignore[index]  # no failure among them


def test_a_single_request_is_run_as_it_came() -> None:
    program = FakeProgram()
    (outputs,) = execute(program, SIGNATURE, [rows(1)])
    assert program.runs == [(1, 2)]
    assert not isinstance(outputs, Exception)


def test_poison_in_a_batch_fails_only_the_request_that_brought_it() -> None:
    program = FakeProgram(fails=has_negative)
    good, bad, fine = execute(program, SIGNATURE, [rows(1), rows(-1), rows(3)])
    assert isinstance(bad, ModelFailed)
    assert str(bad) == "model 'm' version 1: ValueError: poison"
    assert not isinstance(good, Exception)
    assert not isinstance(fine, Exception)
    assert (good[0][0, 0], fine[0][0, 0]) == (2, 6)
    assert program.runs == [(3, 2), (1, 2), (1, 2), (1, 2)]


def test_an_undeclared_answer_is_a_failure() -> None:
    (failure,) = execute(FakeProgram(), SIGNATURE, [(np.zeros((1, 3), "f4"),)])
    assert isinstance(failure, ModelFailed)
    assert "declared FP32 [1, 2], the model gave FP32 [1, 3]" in str(failure)


def test_a_model_without_a_batch_dimension_gets_what_came() -> None:
    signature = Signature.of("m", 1, config(0, "[]"))
    (outputs,) = execute(FakeProgram(), signature, [(np.array(3, dtype="f4"),)])
    assert not isinstance(outputs, Exception)
    assert outputs[0] == 6


def test_warm_up_runs_each_size_as_often_as_asked() -> None:
    program = FakeProgram()
    warm(program, SIGNATURE, (1, 8), 3)
    assert program.runs == [(1, 2)] * 3 + [(8, 2)] * 3


def test_warm_up_gives_variable_sizes_some_length() -> None:
    program = FakeProgram()
    warm(program, Signature.of("m", 1, config(shape="[-1, 3]")), (2,), 1)
    assert program.runs == [(2, 32, 3)]


def test_a_model_that_fails_its_warm_up_is_refused_with_the_shapes_it_was_tried_with() -> None:
    with pytest.raises(StartError) as refusal:
        warm(FakeProgram(fails=lambda _: True), SIGNATURE, (8,), 1)
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

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array
from coalmine_server.config import ModelConfig
from coalmine_server.packaging.try_run import TryResult, try_random
from coalmine_server.runtime.samples import random_inputs
from coalmine_server.signature import Signature
from tests.doubles.package_rig import Function, FunctionProgram
from tests.models import config


def signature(
    datatype: str = "FP32", rows_max: int = 8, shape: tuple[int, ...] = (3,), gives: str = ""
) -> Signature:
    x = {"name": "x", "datatype": datatype, "shape": list(shape)}
    y = {"name": "y", "datatype": gives or datatype, "shape": list(shape)}
    content = config(inputs=[x], outputs=[y], max_batch_size=rows_max)
    return Signature.of("m", 1, ModelConfig.model_validate(content))


FLOATS = signature()


def tried(function: Function, of: Signature = FLOATS) -> TryResult:
    return try_random(FunctionProgram(function), of)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "BF16", "INT64", "UINT8", "BOOL"])
def test_a_model_that_keeps_rows_apart_earns_no_word(datatype: str) -> None:
    assert tried(lambda x: x * x, signature(datatype)) == TryResult()


def test_one_row_and_the_most_rows_are_run_with_values_that_are_not_zero() -> None:
    program = FunctionProgram(lambda x: x)
    try_random(program, FLOATS)
    assert {(1, 3), (8, 3)} <= set(program.runs)
    [x] = random_inputs(FLOATS, 8, np.random.default_rng(0))
    assert np.count_nonzero(x) == x.size


def test_the_values_are_the_same_each_time() -> None:
    seen: list[Array] = []

    def poll_once(x: Array) -> Array:
        seen.append(x)
        return x

    assert tried(poll_once) == tried(poll_once)
    half = len(seen) // 2
    assert all(map(np.array_equal, seen[:half], seen[half:]))


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: np.exp(x) / np.exp(x).sum(0),
        lambda x: x - x.mean(0),
        lambda x: (x - x.mean(0)) / (x.std(0) + 1e-5),
        lambda x: x / np.linalg.norm(x),
        lambda x: x[::-1],
        lambda x: np.sort(x, axis=0),
        lambda x: np.cumsum(x, axis=0),
        lambda x: np.repeat(x[:1], len(x), axis=0),
    ],
    ids=["softmax", "centre", "batch norm", "norm", "reversed", "sorted", "sums", "first for all"],
)
def test_a_model_that_mixes_rows_is_caught(mixes: Function) -> None:
    found = tried(lambda x: mixes(x).astype("f4"))
    assert found.warnings == ()
    assert found.mixing.startswith("rows of a batch are not kept apart: output 'y' of row ")
    assert "of the largest value from what the row gives alone" in found.mixing


def test_rounding_that_depends_on_the_batch_size_is_no_mixing() -> None:
    assert tried(lambda x: x * np.float32(1 + 1e-6 * len(x))) == TryResult()


def test_a_scale_that_the_whole_batch_shares_earns_a_warning() -> None:
    def quantised(x: Array) -> Array:
        step = np.abs(x).max() / 127
        return np.asarray((np.round(x / step) * step).astype("f4"))

    [warning] = tried(quantised).warnings
    assert warning.startswith("an answer depends a little on its batch: output 'y' of row ")


def test_bits_of_half_precision_are_rounding() -> None:
    def jitter(x: Array) -> Array:
        wide = x.astype("f4") * (1 + 0.005 * (len(x) > 1))
        return np.asarray(wide.astype(ml_dtypes.bfloat16))

    assert tried(jitter, signature("BF16")) == TryResult()


def test_of_integers_some_may_tip_over_but_not_most() -> None:
    integers = signature("INT64", shape=(8,))

    def tips(count: int) -> Function:
        def run(x: Array) -> Array:
            y = x.copy()
            y[:, :count] += len(x) > 1
            return y

        return run

    [warning] = tried(tips(1), integers).warnings
    assert warning.endswith("4 of 32 elements of output 'y' differ from those alone")
    assert tried(tips(5), integers).mixing.endswith(
        "20 of 32 elements of output 'y' differ from those alone"
    )


def test_what_is_no_number_equals_itself_only() -> None:
    assert tried(lambda x: np.full_like(x, np.nan)) == TryResult()
    assert tried(lambda x: np.full_like(x, np.inf)) == TryResult()
    assert "finite or not" in tried(lambda x: x if len(x) == 1 else x * np.float32(np.inf)).mixing


def test_a_model_of_chance_is_not_taken_for_one_that_mixes() -> None:
    chance = np.random.default_rng(1)
    found = tried(lambda x: chance.standard_normal(x.shape).astype("f4"))
    assert found == TryResult(("gives another answer each time, so rows could not be compared",))


def test_a_model_that_writes_into_its_input_or_answers_with_its_own_memory_is_tried_fairly() -> (
    None
):
    memory = np.zeros((8, 3), "f4")

    def in_place(x: Array) -> Array:
        x *= 2
        memory[: len(x)] = x
        return memory[: len(x)]

    assert tried(in_place) == TryResult()


def test_an_answer_of_another_size_in_a_batch_earns_a_warning() -> None:
    variable = signature(shape=(-1,))
    [warning] = tried(lambda x: x[:, : 4 + len(x)], variable).warnings
    assert warning.endswith("output 'y' has another size than that of a row alone")


def test_an_answer_that_is_not_as_declared_is_refused() -> None:
    with pytest.raises(StartError) as refused:
        tried(lambda x: x[:, :2] if x.any() else x)
    assert str(refused.value) == (
        "model 'm' version 1: on random values, output 'y' is declared FP32 [1, 3], "
        "the model gave FP32 [1, 2]"
    )


def test_a_model_that_only_zeros_suit_earns_a_warning() -> None:
    def picky(x: Array) -> Array:
        raise ModelFailed("ValueError: no such token")

    assert tried(picky).warnings == (
        "failed on random values: ValueError: no such token; only zeros were tried",
    )


def test_integers_are_0_or_1_for_they_may_be_indices() -> None:
    [x] = random_inputs(signature("INT32", shape=(100,)), 4, np.random.default_rng(0))
    assert x.dtype == np.int32
    assert set(x.flat) == {0, 1}


def test_texts_are_texts() -> None:
    [x] = random_inputs(signature("BYTES", shape=(100,)), 4, np.random.default_rng(0))
    assert set(x.flat) == {"0", "1"}
    texts = signature("BYTES")
    given = np.vectorize(lambda each: str(each).encode(), otypes=[object])
    assert tried(given, texts) == TryResult()
    assert tried(lambda x: given(x + str(len(x))), texts).mixing.endswith(
        "12 of 12 elements of output 'y' differ from those alone"
    )


def test_a_model_without_a_batch_dimension_has_no_rows_to_keep_apart() -> None:
    program = FunctionProgram(lambda x: x - x.mean())
    assert try_random(program, signature(rows_max=0, shape=(-1, 2))) == TryResult()
    assert program.runs == [(32, 2)]


def test_an_optional_input_is_also_left_out() -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [3]}
    content = config(inputs=[x, {**x, "name": "mask", "optional": True}], outputs=[x])
    optional = Signature.of("m", 1, ModelConfig.model_validate(content))
    seen = set()

    def poll_once(*given: Any) -> Array:
        x, mask = given
        seen.add(mask is None)
        return np.asarray(x)

    assert tried(poll_once, optional) == TryResult()
    assert seen == {True, False}

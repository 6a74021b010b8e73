import numpy as np
import pytest
from torch import Tensor, nn

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array, numpy_dtype
from coalmine_server.runtime.torchscript import TorchScript
from tests.models import (
    IDENTITY_DATATYPES,
    Identity,
    Linear,
    Raises,
    Sequences,
    Unbatched,
    scripted,
)


def run(module: nn.Module, *inputs: Array, outputs: tuple[str, ...] = ("y",)) -> list[Array]:
    return TorchScript().load(scripted(module), outputs).run(inputs)


def test_a_module_runs_on_arrays_and_gives_arrays() -> None:
    (logits,) = run(Linear(), np.ones((2, 64), dtype="f4"))
    np.testing.assert_array_equal(logits, np.outer([64.0, 64.0], np.arange(10)))


def test_every_datatype_goes_through_unchanged() -> None:
    inputs = [np.array([[0, 1]]).astype(numpy_dtype(each)) for each in IDENTITY_DATATYPES]
    names = tuple(IDENTITY_DATATYPES)
    for given, got in zip(inputs, run(Identity(), *inputs, outputs=names), strict=True):
        assert got.dtype == given.dtype
        np.testing.assert_array_equal(got, given)


def test_a_large_read_only_view_is_taken_without_a_copy_or_a_warning() -> None:
    blob = np.ones((100, 64), dtype="f4").tobytes()
    (logits,) = run(Linear(), np.frombuffer(blob, dtype="<f4").reshape(100, 64))
    assert logits[99, 1] == 64


def test_outputs_of_a_dict_are_taken_by_name_in_the_declared_order() -> None:
    tokens = np.array([[1, 2, 3]], dtype="i8")
    doubled, length = run(Sequences(), tokens, outputs=("doubled", "length"))
    np.testing.assert_array_equal(doubled, [[2, 4, 6]])
    np.testing.assert_array_equal(length, [[3]])


def test_an_output_that_the_dict_lacks_is_the_models_failure() -> None:
    with pytest.raises(ModelFailed, match="the model gave no output 'tripled'"):
        run(Sequences(), np.array([[1]]), outputs=("tripled",))


def test_a_scalar_output_has_no_dimension() -> None:
    (total,) = run(Unbatched(), np.ones((3, 2), dtype="f4"))
    assert (total.shape, float(total)) == ((), 6.0)


def test_what_a_script_raises_comes_back_as_its_class_and_first_line() -> None:
    with pytest.raises(ModelFailed) as failure:
        run(Raises(), np.full((1, 64), -1, dtype="f4"))
    assert str(failure.value) == "ValueError: negative pixel"


def test_what_torch_raises_comes_back_as_its_class_and_first_line() -> None:
    with pytest.raises(ModelFailed) as failure:
        run(Linear(), np.ones((2,), dtype="f4"))
    assert str(failure.value).startswith("RuntimeError: Dimension out of range")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04 not really"])
def test_bytes_that_are_no_module_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(StartError, match=r"^not a TorchScript file: ") as refusal:
        TorchScript().load(data, ("y",))
    assert "\n" not in str(refusal.value)


def test_a_module_that_keeps_count_goes_on_counting() -> None:
    loaded = TorchScript().load(scripted(Counter()), ("y",))
    assert [float(loaded.run([np.zeros(1, "f4")])[0][0]) for _ in range(3)] == [1, 2, 3]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + self.seen


def test_threads_are_set_for_the_calling_thread() -> None:
    TorchScript().use_threads(1)

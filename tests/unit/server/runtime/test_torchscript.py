import gc
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from coalmine.errors import ModelFailed, StartError
from coalmine.process import machine
from coalmine.tensors import Array, numpy_dtype
from coalmine_server.runtime.program import Program
from coalmine_server.runtime.torchscript import TorchScript
from coalmine_server.signature import Signature, TensorSpec
from tests.doubles.native_memory import resident_bytes
from tests.models import (
    IDENTITY_DATATYPES,
    Identity,
    Linear,
    Masked,
    Overwrites,
    Raises,
    Sequences,
    Unbatched,
    Words,
    scripted,
)


def load(
    module: nn.Module,
    *inputs: str | TensorSpec,
    outputs: tuple[str, ...] = ("y",),
    rows_max: int = 32,
) -> Program:
    """Load a module whose tensors are named, or declared in full."""
    specs = [each if isinstance(each, TensorSpec) else _spec(each) for each in inputs]
    signature = Signature("m", 1, rows_max, tuple(specs), tuple(_spec(each) for each in outputs))
    return TorchScript().load(scripted(module), signature, "cpu", 0)


def _spec(text: str) -> TensorSpec:
    """Return NAME:DATATYPE; FP32 where there is none. Shapes don't matter here."""
    name, _, datatype = text.partition(":")
    return TensorSpec(name, datatype or "FP32", (-1, 1))


def run(module: nn.Module, *inputs: Array, outputs: tuple[str, ...] = ("y",)) -> list[Array]:
    names = [f"x{number}" for number, _ in enumerate(inputs)]
    return list(load(module, *names, outputs=outputs).run(inputs))


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


class _Named(NamedTuple):
    labels: Tensor
    scores: Tensor


class _NamedOutputs(nn.Module):
    def forward(self, x: Tensor) -> _Named:
        return _Named(labels=x * 2, scores=x * 3)


ONE: Array = np.ones((1, 1), dtype="f4")


class _Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_module_that_draws_at_random_is_served_as_it_is_and_keeps_drawing() -> None:
    # To compare it, both forms would need one seed, and that would be the whole process's.
    with capture_logs() as said:
        drawn = [run(_Noisy(), ONE)[0][0, 0] for _ in range(4)]
    assert [each["event"] for each in said] == ["model_not_frozen"] * 4
    assert len(set(map(float, drawn))) == 4


@pytest.mark.parametrize(
    ("outputs", "values"),
    [
        (("scores", "labels"), [3.0, 2.0]),
        (("labels", "scores"), [2.0, 3.0]),
        (("scores",), [3.0]),
        (("a", "b"), [2.0, 3.0]),
    ],
)
def test_fields_are_taken_by_name_and_by_place_where_no_name_is_theirs(
    outputs: tuple[str, ...], values: list[float]
) -> None:
    found = run(_NamedOutputs(), ONE, outputs=outputs)
    assert [float(each[0, 0]) for each in found] == values


def test_an_output_that_is_no_field_beside_one_that_is_is_the_models_failure() -> None:
    with pytest.raises(ModelFailed, match="gave no output 'other'"):
        run(_NamedOutputs(), ONE, outputs=("scores", "other"))


class _Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.conj(torch.complex(x, x)).imag


def test_an_output_that_torch_holds_as_the_negative_of_another_is_resolved() -> None:
    (found,) = run(_Negative(), ONE)
    np.testing.assert_array_equal(found, -ONE)


class _OwnStatistics(nn.Module):
    """Normalised by what it is given, on purpose: freezing puts fixed numbers in their place."""

    mean: Tensor
    var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 3, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        return nn.functional.batch_norm(y, self.mean, self.var, None, None, True, 0.0)


def _traced_in_training() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(1, 3, 1), nn.BatchNorm1d(3)).train()
    trace: Any = torch.jit.trace
    traced: nn.Module = trace(module, torch.randn(2, 1, 5), check_trace=False)
    return traced


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [_OwnStatistics, _traced_in_training])
def test_answers_are_those_of_the_file_where_freezing_changes_them(
    make: Callable[[], nn.Module],
) -> None:
    data = scripted(make())
    x = np.random.default_rng(1).standard_normal((2, 1, 5)).astype("f4")
    signature = Signature(
        "m", 1, 8, (TensorSpec("x", "FP32", (-1, 1, 5)),), (TensorSpec("y", "FP32", (-1, 3, 5)),)
    )
    file: Any = torch.jit.load(io.BytesIO(data)).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        expected = file(torch.from_numpy(x.copy())).numpy()
    (found,) = TorchScript().load(data, signature, "cpu", 0).run((x,))
    np.testing.assert_allclose(found, expected, atol=1e-5)


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
        TorchScript().load(data, Signature("m", 1, 1, (), ()), "cpu", 0)
    assert "\n" not in str(refusal.value)


def test_a_module_that_keeps_count_goes_on_counting() -> None:
    loaded = load(Counter(), "x")
    assert [float(loaded.run((np.zeros(1, "f4"),))[0][0]) for _ in range(3)] == [1, 2, 3]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + self.seen


def test_threads_are_set_for_the_calling_thread() -> None:
    def used(count: int) -> int:
        TorchScript().use_threads(count)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as another:
        before = torch.get_num_threads()
        assert [another.submit(used, count).result() for count in (1, 3)] == [1, 3]
        assert torch.get_num_threads() == before


# ---------------------------------------------------------------- copies


class Identical(nn.Module):
    """Gives the very tensor that it got."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def view_at(offset: int, elements: int = 150_528) -> Array:
    """Return an array over bytes, as raw contents are, at an offset in them."""
    blob = bytes(range(256)) * (elements * 4 // 256 + 1)
    return np.ndarray((1, elements), "<f4", memoryview(blob)[offset : offset + elements * 4])


def test_a_large_aligned_input_reaches_the_module_without_a_copy() -> None:
    given = view_at(16)
    (got,) = run(Identical(), given)
    assert np.shares_memory(got, given)


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_an_input_that_begins_between_elements_is_copied_to_where_a_tensor_may_be(
    offset: int,
) -> None:
    given = view_at(offset)
    (got,) = run(Identical(), given)
    assert got.flags.aligned
    assert not np.shares_memory(got, given)
    np.testing.assert_array_equal(got, given)


def test_a_small_input_is_copied_for_its_bytes_may_be_shared() -> None:
    given = np.ndarray((1, 1), "u1", b"a")
    run(Increments(), given)
    assert bytes([97]) == b"a"


class Increments(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


def test_a_module_may_write_into_its_input() -> None:
    (got,) = run(Overwrites(), np.ones((2, 64), "f4"))
    assert (got == 2).all()


# ---------------------------------------------------------------- what a module gives


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return


class Number(nn.Module):
    def forward(self, x: Tensor) -> int:
        return 3


class Strings(nn.Module):
    def forward(self, x: Tensor) -> list[str]:
        return ["a", "b"]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Nothing(), "output 'y': expected a tensor, the model gave None"),
        (Number(), "output 'y': expected a tensor, the model gave a int"),
        (Strings(), "expected 1 outputs, the model gave 2"),
    ],
)
def test_an_answer_that_is_no_tensor_is_the_models_failure(module: nn.Module, text: str) -> None:
    with pytest.raises(ModelFailed, match=f"^{text}$"):
        run(module, np.ones((1, 64), "f4"))


def test_too_many_outputs_are_the_models_failure() -> None:
    with pytest.raises(ModelFailed, match=r"^expected 2 outputs, the model gave 1$"):
        run(Linear(), np.ones((1, 64), "f4"), outputs=("y", "z"))


# ---------------------------------------------------------------- strings


def text(*words: str) -> Array:
    array = np.empty((len(words), 1), dtype=object)
    array[:, 0] = words
    return array


WORDS = ("shouted:BYTES", "lengths:INT64")


def test_a_module_takes_and_gives_strings() -> None:
    program = load(Words(), "words:BYTES", outputs=WORDS)
    shouted, lengths = program.run((text("one", "zwölf", ""),))
    assert shouted.tolist() == [[b"ONE"], ["ZWöLF".encode()], [b""]], "TorchScript's own capitals"
    assert lengths.tolist() == [[3], [6], [0]], "TorchScript counts bytes"


def test_strings_that_do_not_fill_the_declared_shape_are_the_models_failure() -> None:
    program = load(Strings(), "x", outputs=("y:BYTES",))
    assert program.run((np.zeros((2, 1), "f4"),))[0].tolist() == [[b"a"], [b"b"]]
    with pytest.raises(ModelFailed, match=r"'y' is declared BYTES \[3, 1\], .* gave 2 strings"):
        program.run((np.zeros((3, 1), "f4"),))


@pytest.mark.parametrize(
    ("module", "inputs", "outputs", "message"),
    [
        (
            Linear(),
            ("x:BYTES",),
            ("y",),
            "input 'x' is declared BYTES, the module takes Tensor there",
        ),
        (
            Words(),
            ("w:FP32",),
            WORDS,
            "input 'w' is declared FP32, the module takes List[str] there",
        ),
        (
            Linear(),
            ("x",),
            ("y:BYTES",),
            "output 'y' is declared BYTES, the module gives Tensor",
        ),
        (Linear(), ("a", "b"), ("y",), "2 inputs are declared, the module's forward takes 1"),
        (
            Masked(),
            ("a", "b", "c"),
            ("y",),
            "3 inputs are declared, the module's forward takes 1 to 2",
        ),
        (
            Linear(),
            (TensorSpec("x", "FP32", (-1, 64), optional=True),),
            ("y",),
            "input 'x' is declared optional, the module takes Tensor there",
        ),
    ],
)
def test_a_declaration_that_the_module_contradicts_is_refused_by_the_tensors_name(
    module: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StartError) as refusal:
        load(module, *inputs, outputs=outputs)
    assert str(refusal.value) == message


# ---------------------------------------------------------------- optional inputs


def test_an_optional_input_that_is_absent_is_none() -> None:
    mask = TensorSpec("mask", "FP32", (-1, 2), optional=True)
    program = load(Masked(), "values", mask)
    values = np.array([[1, 2]], "f4")
    assert program.run((values, None))[0].tolist() == [3]
    assert program.run((values, np.array([[0, 1]], "f4")))[0].tolist() == [2]


# ---------------------------------------------------------------- devices and memory


def test_a_device_that_is_not_there_is_refused() -> None:
    signature = Signature("m", 1, 1, (_spec("x"),), (_spec("y"),))
    runtime = TorchScript(cuda_count=lambda: 0)
    with pytest.raises(StartError, match="device 'cuda:0' is not there"):
        runtime.load(scripted(Linear()), signature, "cuda:0", 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_module_runs_on_a_cuda_device(device: str) -> None:
    signature = Signature("m", 1, 1, (_spec("x"),), (_spec("y"),))
    program = TorchScript().load(scripted(Linear()), signature, device, 0)
    assert program.device == "cuda:0"
    (logits,) = program.run((np.ones((2, 64), dtype="f4"),))
    np.testing.assert_array_equal(logits, np.outer([64.0, 64.0], np.arange(10)))


class Shared(nn.Module):
    """Two names for the same 4,000 bytes, and a buffer of 80."""

    numbers: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))
        self.again = self.weight
        self.register_buffer("numbers", torch.zeros(10, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.sum() + self.again.sum() + self.numbers.sum()


def test_a_program_tells_how_much_memory_its_weights_take() -> None:
    program = load(Shared(), "x")
    assert (program.nbytes, program.device) == (4080, "cpu")


class Wide(nn.Module):
    """20 MB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2236, 2236)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)
        return answer


@pytest.fixture
def no_collection() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_fifty_models_loaded_and_closed_leave_no_memory_behind(no_collection: Any) -> None:
    data = scripted(Wide())
    signature = Signature("m", 1, 4, (_spec("x"),), (_spec("y"),))

    def cycle() -> None:
        program = TorchScript().load(data, signature, "cpu", 0)
        program.run((np.zeros((4, 2236), "f4"),))
        assert program.nbytes > 20_000_000
        program.close()

    for _ in range(3):
        cycle()
    machine.give_memory_back()
    before = resident_bytes()
    for _ in range(50):
        cycle()
    machine.give_memory_back()
    assert resident_bytes() - before < 20_000_000, "less than one model of fifty"

"""The inputs and outputs of a model version, and the check of its answers. Pure."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from coalmine.errors import InvalidTensor, ModelFailed
from coalmine.tensors import Array, datatype_of, numpy_dtype
from coalmine_server.config import ModelConfig, TensorConfig

Shape = tuple[int, ...]
# One entry an input, None where it is absent: requests with different inputs never share a batch.
Arrays = tuple[Array | None, ...]
ShapeKey = tuple[Shape | None, ...]

_VARIABLE: Final = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A declared tensor as it travels: with the batch dimension (-1), where the model has one."""

    name: str
    datatype: str
    shape: Shape
    optional: bool = False

    def takes(self, datatype: str, shape: Shape) -> bool:
        """Return whether a tensor fits."""
        return datatype == self.datatype and _shape_fits(self.shape, shape)

    def takes_array(self, array: Array) -> bool:
        """Return whether an array fits."""
        return array.dtype == numpy_dtype(self.datatype) and _shape_fits(self.shape, array.shape)

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"


# Remembered: callers send few shapes, and to compare them costs more than to look it up.
@functools.lru_cache(maxsize=4096)
def _shape_fits(expected: Shape, shape: Shape) -> bool:
    return len(expected) == len(shape) and all(
        size in (given, _VARIABLE) for size, given in zip(expected, shape, strict=True)
    )


# Not frozen: one is made for each request, and freezing costs more than all it holds.
@dataclass(slots=True, eq=False)
class CheckedRequest:
    """A request that fits: its inputs in the signature's order, and the outputs that it wants.

    `shape_key` is equal where requests can share a batch. `nbytes` is the memory that the request
    takes: its inputs may be views of its message. An input of BYTES has `str` elements.
    """

    arrays: Arrays
    rows: int
    shape_key: ShapeKey
    outputs: tuple[int, ...]
    raw: bool
    timeout_ns: int | None = None
    priority: int = 0  # 1 is highest; 0, the default, comes after all others
    nbytes: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of one version; `rows_max` is 0 where it has no batch dimension."""

    model: str
    version: int
    rows_max: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    every_output: tuple[int, ...] = field(init=False)
    _input_at: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "every_output", tuple(range(len(self.outputs))))
        places = {spec.name: index for index, spec in enumerate(self.inputs)}
        object.__setattr__(self, "_input_at", places)

    @classmethod
    def of(cls, model: str, version: int, config: ModelConfig) -> Self:
        """Return the signature that a config.yaml declares."""
        rows_max = config.max_batch_size
        return cls(
            model,
            version,
            rows_max,
            tuple(_tensor_spec(each, batched=rows_max > 0) for each in config.inputs),
            tuple(_tensor_spec(each, batched=rows_max > 0) for each in config.outputs),
        )

    @property
    def label(self) -> str:
        """How errors and logs name the version."""
        return f"model '{self.model}' version {self.version}"

    @property
    def batched(self) -> bool:
        """Whether the first dimension counts rows."""
        return self.rows_max > 0

    def input_index(self, name: str) -> int | None:
        """Return which input has this name."""
        return self._input_at.get(name)


def _tensor_spec(config: TensorConfig, *, batched: bool) -> TensorSpec:
    shape = (_VARIABLE, *config.shape) if batched else config.shape
    return TensorSpec(config.name, config.datatype, shape, config.optional)


# ---------------------------------------------------------------- answers


def check_outputs(signature: Signature, arrays: Sequence[Array], rows: int) -> None:
    """Raise ModelFailed where the outputs for `rows` rows are not as declared."""
    if len(arrays) != len(signature.outputs):
        raise ModelFailed(
            f"{signature.label}: expected {len(signature.outputs)} outputs, "
            f"the model gave {len(arrays)}"
        )
    for spec, array in zip(signature.outputs, arrays, strict=True):
        if spec.takes_array(array) and (not signature.batched or len(array) == rows):
            continue
        expected = (rows, *spec.shape[1:]) if signature.batched else spec.shape
        raise ModelFailed(
            f"{signature.label}: output '{spec.name}' is declared {spec.datatype} "
            f"{list(expected)}, the model gave {_given_datatype(array)} {list(array.shape)}"
        )


def _given_datatype(array: Array) -> str:
    try:
        return datatype_of(array.dtype)
    except InvalidTensor:
        return str(array.dtype)  # the protocol has no name for it, so it can't be what is declared

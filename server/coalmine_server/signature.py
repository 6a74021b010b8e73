"""What a model version takes and gives, and the check of a request against it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from coalmine.errors import InvalidRequest, InvalidTensor, ModelFailed, NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, Tensor, datatype_of, decode_inputs
from coalmine_server.config import ModelConfig, TensorConfig

Shape = tuple[int, ...]
ShapeKey = tuple[Shape, ...]

_VARIABLE: Final = -1

# Triton's parameters that change what an answer means: ignoring them would be a wrong answer.
_REFUSED_OF_REQUEST: Final = ("sequence_id", "sequence_start", "sequence_end")
_REFUSED_OF_TENSOR: Final = ("shared_memory_region", "classification")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A declared tensor as it travels: with the batch dimension (-1), where the model has one."""

    name: str
    datatype: str
    shape: Shape

    def takes(self, datatype: str, shape: Sequence[int]) -> bool:
        """Return whether a tensor fits."""
        return (
            datatype == self.datatype
            and len(shape) == len(self.shape)
            and all(
                expected in (size, _VARIABLE)
                for expected, size in zip(self.shape, shape, strict=True)
            )
        )

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that fits: its inputs in the signature's order, and what is wanted of the outputs.

    `shape_key` is equal where requests can share a batch.
    """

    arrays: tuple[Array, ...]
    rows: int
    shape_key: ShapeKey
    outputs: tuple[int, ...]
    raw: bool
    timeout_ns: int | None
    priority: int = 0  # 1 is highest, 0 the default: behind all that ask for one


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of one version; `rows_max` is 0 where it has no batch dimension."""

    model: str
    version: int
    rows_max: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, model: str, version: int, config: ModelConfig) -> Self:
        """Return the signature that a config.yaml declares."""
        rows_max = config.max_batch_size
        return cls(
            model,
            version,
            rows_max,
            tuple(_spec(each, batched=rows_max > 0) for each in config.inputs),
            tuple(_spec(each, batched=rows_max > 0) for each in config.outputs),
        )

    @property
    def label(self) -> str:
        """How errors and logs name the version."""
        return f"model '{self.model}' version {self.version}"

    @property
    def batched(self) -> bool:
        """Whether the first dimension counts rows."""
        return self.rows_max > 0


def _spec(config: TensorConfig, *, batched: bool) -> TensorSpec:
    shape = (_VARIABLE, *config.shape) if batched else config.shape
    return TensorSpec(config.name, config.datatype, shape)


# ---------------------------------------------------------------- requests


def check_request(signature: Signature, request: pb.ModelInferRequest) -> Checked:
    """Return the request's content, read against the signature.

    Raises InvalidRequest, saying what was expected, what came, and for which model; NotOffered for
    a parameter of Triton's that would change the answer. Shapes are checked before bytes are read.
    """
    try:
        _check_declared(signature, request.inputs)
        arrays = _in_order(signature, decode_inputs(request))
    except InvalidTensor as error:
        raise InvalidTensor(f"{signature.label}: input {error}") from None
    return Checked(
        arrays=arrays,
        rows=_rows(signature, arrays),
        shape_key=tuple(array.shape[signature.batched :] for array in arrays),
        outputs=_requested(signature, request.outputs),
        raw=bool(request.raw_input_contents),
        timeout_ns=_timeout_ns(signature, request.parameters),
    )


def _check_declared(
    signature: Signature, inputs: Sequence[pb.ModelInferRequest.InferInputTensor]
) -> None:
    missing = {each.name: each for each in signature.inputs}
    for given in inputs:
        spec = missing.pop(given.name, None)
        if spec is None:
            raise InvalidTensor(_unexpected(signature, given.name))
        if not spec.takes(given.datatype, given.shape):
            raise InvalidTensor(
                f"'{spec.name}' expects {spec}, got {given.datatype} {list(given.shape)}"
            )
        if given.parameters:
            _refuse(signature, given.parameters, _REFUSED_OF_TENSOR)
    if missing:
        raise InvalidTensor(f"'{next(iter(missing))}' is missing")


def _unexpected(signature: Signature, name: str) -> str:
    names = [each.name for each in signature.inputs]
    if name in names:
        return f"'{name}' came twice"
    return f"'{name}' is unknown, expected {_quoted(names)}"


def _in_order(signature: Signature, tensors: Sequence[Tensor]) -> tuple[Array, ...]:
    if len(tensors) == 1:
        return (tensors[0].array,)
    by_name = {each.name: each.array for each in tensors}
    return tuple(by_name[spec.name] for spec in signature.inputs)


def _rows(signature: Signature, arrays: Sequence[Array]) -> int:
    if not signature.batched:
        return 1
    rows: int = arrays[0].shape[0]
    for spec, array in zip(signature.inputs, arrays, strict=True):
        if array.shape[0] != rows:
            raise InvalidRequest(
                f"{signature.label}: input '{spec.name}' has {array.shape[0]} rows, "
                f"but '{signature.inputs[0].name}' has {rows}"
            )
    if not 1 <= rows <= signature.rows_max:
        raise InvalidRequest(
            f"{signature.label}: expects 1 to {signature.rows_max} rows, got {rows}"
        )
    return rows


def _requested(
    signature: Signature, outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]
) -> tuple[int, ...]:
    if not outputs:
        return tuple(range(len(signature.outputs)))
    names = [each.name for each in signature.outputs]
    wanted: dict[int, None] = {}
    for each in outputs:
        if each.name not in names:
            raise InvalidRequest(
                f"{signature.label}: output '{each.name}' is unknown, expected {_quoted(names)}"
            )
        if each.parameters:
            _refuse(signature, each.parameters, _REFUSED_OF_TENSOR)
        wanted[names.index(each.name)] = None
    return tuple(wanted)


# ---------------------------------------------------------------- parameters


def _timeout_ns(signature: Signature, parameters: Mapping[str, pb.InferParameter]) -> int | None:
    """Return `timeout`, microseconds on the wire, in nanoseconds; 0 is none, as in Triton."""
    if not parameters:
        return None
    _refuse(signature, parameters, _REFUSED_OF_REQUEST)
    _integer(signature, parameters, "priority", ("uint64_param", "int64_param"))
    timeout_us = _integer(signature, parameters, "timeout", ("int64_param",))
    return timeout_us * 1_000 if timeout_us else None


def _integer(
    signature: Signature,
    parameters: Mapping[str, pb.InferParameter],
    name: str,
    kinds: tuple[str, ...],
) -> int | None:
    if name not in parameters:
        return None
    given: Any = parameters[name]
    kind = given.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidRequest(
            f"{signature.label}: parameter '{name}' expects {kinds[0]}, got {kind or 'nothing'}"
        )
    value: int = getattr(given, kind)
    if value < 0:
        raise InvalidRequest(
            f"{signature.label}: parameter '{name}' expects 0 or more, got {value}"
        )
    return value


def _refuse(
    signature: Signature, parameters: Mapping[str, pb.InferParameter], refused: Sequence[str]
) -> None:
    for name in refused:
        if name in parameters:
            raise NotOffered(f"{signature.label}: parameter '{name}' is not offered")


# ---------------------------------------------------------------- answers


def check_outputs(signature: Signature, arrays: Sequence[Array], rows: int) -> None:
    """Raise ModelFailed where a model gave what it had not declared, for `rows` rows."""
    if len(arrays) != len(signature.outputs):
        raise ModelFailed(
            f"{signature.label}: expected {len(signature.outputs)} outputs, "
            f"the model gave {len(arrays)}"
        )
    for spec, array in zip(signature.outputs, arrays, strict=True):
        given = _given_datatype(array)
        if not spec.takes(given, array.shape) or (signature.batched and array.shape[0] != rows):
            expected = (rows, *spec.shape[1:]) if signature.batched else spec.shape
            raise ModelFailed(
                f"{signature.label}: output '{spec.name}' is declared {spec.datatype} "
                f"{list(expected)}, the model gave {given} {list(array.shape)}"
            )


def _given_datatype(array: Array) -> str:
    try:
        return datatype_of(array.dtype)
    except InvalidTensor:
        return str(array.dtype)  # the protocol has no name for it, so it can't be what is declared


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)

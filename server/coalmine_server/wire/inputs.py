"""The check of a request against the signature of its model version. Pure."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from coalmine.errors import InvalidRequest, InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import BYTES, RANK_MAX, Array, Blob, from_raw, from_typed, travels_typed
from coalmine_server.signature import Arrays, CheckedRequest, ShapeKey, Signature, TensorSpec
from coalmine_server.wire.parameters import NO_PARAMETERS, read_parameters, refuse_parameters
from coalmine_server.wire.requests import InferRequest

# A request may name an output more than once, but each time is a step on the loop.
_REPEATS_MAX: Final = 4


def check_request(signature: Signature, request: InferRequest) -> CheckedRequest:
    """Return the request's content, read against the signature.

    Raises InvalidRequest, which names what was expected, what came, and the model; NotOffered for a
    parameter of Triton's that would change the answer. Shapes are checked before bytes are read.
    """
    message = request.message
    try:
        arrays = _inputs(signature, message, request.blobs)
    except InvalidTensor as error:
        raise InvalidTensor(f"{signature.label}: input {error}") from None
    parameters = NO_PARAMETERS
    if message.parameters:
        parameters = read_parameters(signature.label, message.parameters)
    raw = bool(request.blobs) if parameters.raw is None else parameters.raw
    return CheckedRequest(
        arrays,
        _checked_row_count(signature, arrays),
        _shape_key(signature, arrays),
        _output_indices(signature, message.outputs, raw=raw),
        raw,
        parameters.timeout_ns,
        parameters.priority,
        request.size,
        message.id,
    )


def _inputs(signature: Signature, message: pb.ModelInferRequest, blobs: Sequence[Blob]) -> Arrays:
    """Return the inputs in the signature's order."""
    given = message.inputs
    if blobs and len(blobs) != len(given):
        raise InvalidRequest(
            f"{signature.label}: {len(given)} inputs, but {len(blobs)} raw contents"
        )
    arrays: list[Array | None] = [None] * len(signature.inputs)
    for at, each in enumerate(given):
        index = signature.input_index(each.name)
        if index is None or arrays[index] is not None:
            raise InvalidTensor(_unexpected_input_text(signature, each.name))
        if each.parameters:
            refuse_parameters(signature.label, each.parameters)
        arrays[index] = _input_array(signature.inputs[index], each, blobs[at] if blobs else None)
    if len(given) < len(arrays):
        _check_absent_are_optional(signature, arrays)
    return tuple(arrays)


def _input_array(
    spec: TensorSpec, given: pb.ModelInferRequest.InferInputTensor, blob: Blob | None
) -> Array:
    if len(given.shape) > RANK_MAX:  # shapes are cached: they have to be short
        raise InvalidTensor(
            f"'{spec.name}' expects {spec}, got {given.datatype} of {len(given.shape)} dimensions"
        )
    shape = tuple(given.shape)
    if not spec.takes(given.datatype, shape):
        raise InvalidTensor(f"'{spec.name}' expects {spec}, got {given.datatype} {list(shape)}")
    if blob is None:
        array = from_typed(spec.name, spec.datatype, shape, given.contents)
    elif given.HasField("contents"):
        raise InvalidTensor(f"'{spec.name}' has typed contents beside raw contents")
    else:
        array = from_raw(spec.name, spec.datatype, shape, blob)
    return _decoded_text(spec.name, array) if spec.datatype == BYTES else array


def _decoded_text(name: str, array: Array) -> Array:
    """Return BYTES as text, which a TorchScript model takes."""
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError:
            raise InvalidTensor(f"'{name}' BYTES: element {index} is not UTF-8") from None
    return texts


def _unexpected_input_text(signature: Signature, name: str) -> str:
    names = [each.name for each in signature.inputs]
    if name in names:
        return f"'{name}' came twice"
    return f"'{name}' is unknown, expected {_quoted_names(names)}"


def _check_absent_are_optional(signature: Signature, arrays: Sequence[Array | None]) -> None:
    for spec, array in zip(signature.inputs, arrays, strict=True):
        if array is None and not spec.optional:
            raise InvalidTensor(f"'{spec.name}' is missing")


def _checked_row_count(signature: Signature, arrays: Arrays) -> int:
    if not signature.batched:
        return 1
    rows = -1
    for spec, array in zip(signature.inputs, arrays, strict=True):
        if array is None:
            continue
        if rows < 0:
            rows, first = len(array), spec.name
        elif len(array) != rows:
            raise InvalidRequest(
                f"{signature.label}: input '{spec.name}' has {len(array)} rows, "
                f"but '{first}' has {rows}"
            )
    if not 1 <= rows <= signature.rows_max:
        raise InvalidRequest(
            f"{signature.label}: expects 1 to {signature.rows_max} rows, got {rows}"
        )
    return rows


def _shape_key(signature: Signature, arrays: Arrays) -> ShapeKey:
    start = 1 if signature.batched else 0
    return tuple([None if each is None else each.shape[start:] for each in arrays])


def _output_indices(
    signature: Signature,
    outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor],
    *,
    raw: bool,
) -> tuple[int, ...]:
    wanted = _indices_of_named(signature, outputs) if outputs else signature.every_output
    if not raw:
        for spec in (signature.outputs[index] for index in wanted):
            if not travels_typed(spec.datatype):
                raise InvalidRequest(
                    f"{signature.label}: output '{spec.name}' {spec.datatype} travels raw only, "
                    "but the request came typed"
                )
    return wanted


def _indices_of_named(
    signature: Signature, outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]
) -> tuple[int, ...]:
    names = [each.name for each in signature.outputs]
    most = _REPEATS_MAX * len(names)
    if len(outputs) > most:
        raise InvalidRequest(
            f"{signature.label}: expects at most {most} requested outputs, got {len(outputs)}"
        )
    wanted: dict[int, None] = {}
    for each in outputs:
        if each.name not in names:
            raise InvalidRequest(
                f"{signature.label}: output '{each.name}' is unknown, "
                f"expected {_quoted_names(names)}"
            )
        if each.parameters:
            refuse_parameters(signature.label, each.parameters)
        wanted[names.index(each.name)] = None
    return tuple(wanted)


def _quoted_names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)

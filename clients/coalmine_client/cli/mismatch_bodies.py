"""The bodies of a kept mismatch, read into tensors. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from coalmine.control.v1 import control_pb2
from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import BYTES, Tensor, decode_inputs, decode_outputs
from coalmine_client.cli.json_values import number_json

Array = NDArray[Any]

_NONE: Final[Mapping[str, Tensor]] = {}


@dataclass(frozen=True, slots=True)
class Body:
    """The tensors of one message by name, or why it has none."""

    tensors: Mapping[str, Tensor]
    unreadable: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return {tensors: {name: {datatype, shape, data}}, unreadable}; data is row-major."""
        return {
            "tensors": {each.name: tensor_json(each) for each in self.tensors.values()},
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True, slots=True)
class MismatchBodies:
    """What was asked, and what the reference and the candidate answered."""

    request: Body
    reference: Body
    candidate: Body

    def as_json(self) -> dict[str, Any]:
        """Return {request, reference_response, candidate_response}, each a body."""
        return {
            "request": self.request.as_json(),
            "reference_response": self.reference.as_json(),
            "candidate_response": self.candidate.as_json(),
        }


def why_not_kept(mismatch: control_pb2.Mismatch) -> str:
    """Return why there are no bodies; "" where there are."""
    if mismatch.capture == "none":
        return "the route keeps no values and no shapes (capture: none)"
    if mismatch.capture == "shapes":
        return "the route keeps shapes and no values (capture: shapes)"
    if mismatch.bodies_dropped:
        return "a body was over the limit (body_bytes_max)"
    return ""


def why_no_request(mismatch: control_pb2.Mismatch) -> str:
    """Return why the request alone is missing; "" where it isn't."""
    if mismatch.inputs_dropped and not mismatch.request:
        return "it can't be told which bytes are those of the inputs to drop"
    return ""


def read_bodies(mismatch: control_pb2.Mismatch) -> MismatchBodies:
    """Return the mismatch's three bodies; one that can't be read says why, and never raises."""
    return MismatchBodies(
        _decode_request(mismatch.request),
        _decode_response(mismatch.reference_response),
        _decode_response(mismatch.candidate_response),
    )


def _decode_request(body: bytes) -> Body:
    try:
        return _body_of(decode_inputs(pb.ModelInferRequest.FromString(body)))
    except (DecodeError, InvalidTensor) as error:
        return Body(_NONE, str(error))


def _decode_response(body: bytes) -> Body:
    try:
        return _body_of(decode_outputs(pb.ModelInferResponse.FromString(body)))
    except (DecodeError, InvalidTensor) as error:
        return Body(_NONE, str(error))


def _body_of(tensors: list[Tensor]) -> Body:
    return Body({each.name: each for each in tensors})


# ---------------------------------------------------------------- elements


def tensor_json(tensor: Tensor) -> dict[str, Any]:
    """Return {datatype, shape, data}: elements row-major, BYTES as text."""
    flat = tensor.array.ravel()
    return {
        "datatype": tensor.datatype,
        "shape": list(tensor.array.shape),
        "data": [_element_json(each) for each in flat.tolist()],
    }


def _element_json(element: Any) -> Any:
    if isinstance(element, float):
        return number_json(element)
    return text_of(element) if isinstance(element, bytes) else element


def text_of(element: bytes) -> str:
    """Return bytes as text; what isn't UTF-8 as escapes."""
    return element.decode(errors="backslashreplace")


def element_text(tensor: Tensor, at: int) -> str:
    """Return the element at a row-major place, as short as tells it apart."""
    element = tensor.array.ravel()[at]
    return repr(text_of(element)) if tensor.datatype == BYTES else str(element)


def distances(reference: Array, candidate: Array) -> Array:
    """Return how far each element lies from its fellow, flat, as float64.

    0 where they are equal, NaN equal to NaN; infinity where they differ and no number says how far.
    """
    r, c = reference.ravel(), candidate.ravel()
    if r.dtype.kind in "Ob" or c.dtype.kind in "Ob":
        return np.where(r == c, 0.0, np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        r64, c64 = r.astype(np.float64), c.astype(np.float64)
        same = (r == c) | (np.isnan(r64) & np.isnan(c64))
        apart = np.abs(c64 - r64)
    # Two integers may differ by less than float64 can tell apart.
    apart = np.where(np.isnan(apart), np.inf, np.maximum(apart, np.finfo(np.float64).tiny))
    return np.where(same, 0.0, apart)

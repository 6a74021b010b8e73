"""A serialised ModelInferResponse as arrays by name. Pure.

Whatever the bytes are, there is a result; what it takes to make one is bounded by their size.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from coalmine.errors import InvalidRequest
from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Tensor, decode_outputs
from coalmine_router import wire
from coalmine_router.codes import OK
from coalmine_router.observer.comparison.measured import text
from coalmine_router.observer.comparison.result import ComparedAnswer

OUTPUTS_MAX: Final = 1_024
NAME_CHARS_MAX: Final = 1_024

# Parsed, an empty field takes a hundred bytes in place of two: large bodies are walked before.
_UNWALKED_BYTES_MAX: Final = 64 * 1024
_VERSION_CHARS_MAX: Final = 128

_NONE: Final[Mapping[str, Tensor]] = MappingProxyType({})


class Read(NamedTuple):
    """The outputs by name, and the model's version as it says; or what is wrong with the bytes."""

    tensors: Mapping[str, Tensor] = _NONE
    version: str = ""
    problem: str = ""


def read(answer: ComparedAnswer) -> Read:
    """Return what an answer holds: nothing where its status isn't OK.

    Arrays of raw outputs are views of the message's bytes.
    """
    if answer.code != OK:
        return Read()
    try:
        return _read(answer.body)
    except DecodeError:
        return Read(problem="not a ModelInferResponse")
    except InvalidRequest as error:
        return Read(problem=text(error))


def _read(body: bytes) -> Read:
    if len(body) > _UNWALKED_BYTES_MAX:
        wire.model_name(body)  # refuses more fields than any answer has
    response = oip.ModelInferResponse.FromString(body)
    if len(response.outputs) > OUTPUTS_MAX:
        return Read(problem=f"{len(response.outputs)} outputs, at most {OUTPUTS_MAX} are compared")
    return _by_name(decode_outputs(response), response.model_version[:_VERSION_CHARS_MAX])


def _by_name(tensors: Iterable[Tensor], version: str) -> Read:
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name in found:
            return Read(problem=text(f"output '{tensor.name}' comes twice"))
        if len(tensor.name) > NAME_CHARS_MAX:
            return Read(problem=f"an output's name has {len(tensor.name)} characters")
        found[tensor.name] = tensor
    return Read(found, version)

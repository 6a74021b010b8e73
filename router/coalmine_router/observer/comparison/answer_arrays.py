"""Reads a serialised ModelInferResponse into arrays by name. Pure.

Any bytes give a result. The time and memory for it are bounded by their size.
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
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.comparison.rule_result import as_text

OUTPUTS_MAX: Final = 1_024
NAME_CHARS_MAX: Final = 1_024

# An empty field takes two bytes, and a hundred once parsed: large bodies are walked first.
_UNWALKED_BYTES_MAX: Final = 64 * 1024
_VERSION_CHARS_MAX: Final = 128

_NONE: Final[Mapping[str, Tensor]] = MappingProxyType({})


class AnswerArrays(NamedTuple):
    """The outputs by name and the version that the model names; or what is wrong with the bytes."""

    tensors: Mapping[str, Tensor] = _NONE
    version: str = ""
    problem: str = ""


def arrays_of(answer: ComparedAnswer) -> AnswerArrays:
    """Return an answer's outputs; none where its status isn't OK.

    Arrays of raw outputs are views of the message's bytes.
    """
    if answer.code != OK:
        return AnswerArrays()
    try:
        return _arrays_in(answer.body)
    except DecodeError:
        return AnswerArrays(problem="not a ModelInferResponse")
    except InvalidRequest as error:
        return AnswerArrays(problem=as_text(error))


def _arrays_in(body: bytes) -> AnswerArrays:
    if len(body) > _UNWALKED_BYTES_MAX:
        wire.model_name(body)  # refuses more fields than any answer has
    response = oip.ModelInferResponse.FromString(body)
    if len(response.outputs) > OUTPUTS_MAX:
        return AnswerArrays(
            problem=f"{len(response.outputs)} outputs, at most {OUTPUTS_MAX} are compared"
        )
    return _arrays_by_name(decode_outputs(response), response.model_version[:_VERSION_CHARS_MAX])


def _arrays_by_name(tensors: Iterable[Tensor], version: str) -> AnswerArrays:
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name in found:
            return AnswerArrays(problem=as_text(f"output '{tensor.name}' comes twice"))
        if len(tensor.name) > NAME_CHARS_MAX:
            return AnswerArrays(problem=f"an output's name has {len(tensor.name)} characters")
        found[tensor.name] = tensor
    return AnswerArrays(found, version)

"""From outputs to the answer's bytes. Pure.

A raw answer is written by hand: each output's elements are copied once, from the model's array into
the message. Through a protobuf message it would be three times.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, Tensor, encode_outputs, to_raw
from coalmine.varint import varint
from coalmine_server.signature import CheckedRequest, Signature

_ID: Final = pb.ModelInferResponse.ID_FIELD_NUMBER << 3 | 2
_RAW: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2
_REMEMBERED_MAX: Final = 1024
_SMALL_BYTES: Final = 16 * 1024


class AnswerWriter:
    """Writes the answers of one version, on one thread only: it caches what it wrote before."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._head = self._empty_response().SerializeToString()
        # What stands before an output's elements depends on its shape alone.
        self._described: dict[tuple[int, tuple[int, ...]], bytes] = {}

    def write(self, request: CheckedRequest, outputs: Sequence[Array]) -> bytes:
        """Return the serialised ModelInferResponse with the requested outputs, raw or typed.

        `outputs` are all that the signature declares, in its order, with the request's own rows.
        """
        if not request.raw:
            return self._write_typed(request, outputs)
        parts: list[Any] = [self._head]
        if request.id:
            parts += _field_parts(_ID, request.id.encode())
        for index in request.outputs:
            parts.append(self._output_description(index, outputs[index].shape))
        for index in request.outputs:
            parts += _field_parts(_RAW, _elements_buffer(outputs[index]))
        return b"".join(parts)

    def _write_typed(self, request: CheckedRequest, outputs: Sequence[Array]) -> bytes:
        response = self._empty_response()
        response.id = request.id
        specs = self._signature.outputs
        tensors = [Tensor(specs[i].name, specs[i].datatype, outputs[i]) for i in request.outputs]
        encode_outputs(response, tensors, raw=False)
        return response.SerializeToString()

    def _empty_response(self) -> pb.ModelInferResponse:
        signature = self._signature
        return pb.ModelInferResponse(
            model_name=signature.model, model_version=str(signature.version)
        )

    def _output_description(self, index: int, shape: tuple[int, ...]) -> bytes:
        found = self._described.get((index, shape))
        if found is None:
            spec = self._signature.outputs[index]
            response = pb.ModelInferResponse()
            response.outputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
            found = response.SerializeToString()
            if len(self._described) >= _REMEMBERED_MAX:
                self._described.clear()
            self._described[index, shape] = found
        return found


def _elements_buffer(array: Array) -> Any:
    """Return the array's elements as a buffer that can be joined into a message.

    A large array is its own buffer. A small one costs less as bytes, and one whose elements lie
    apart has to be copied.
    """
    if array.dtype.hasobject or not array.dtype.isnative:
        return to_raw(array)
    if array.nbytes <= _SMALL_BYTES or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8)


def _field_parts(tag: int, value: Any) -> tuple[bytes, Any]:
    """Return a field with a tag of one byte, in two parts; `value` has one byte an item."""
    size = len(value)
    head = bytes((tag, size)) if size < 0x80 else bytes((tag,)) + varint(size)
    return head, value

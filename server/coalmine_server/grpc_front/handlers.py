"""The service's twelve methods, and how their bytes are read and written.

In place of the generated registration: a message that is none becomes INVALID_ARGUMENT, raw
contents of large requests are not copied, and answers may be bytes already.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as pb
from coalmine.listener.request_decoding import decoder_of
from coalmine_server.wire.requests import read_infer

_INFER: Final = pb.ModelInferRequest.DESCRIPTOR.full_name


def generic_handler_of(servicer: Any) -> grpc.GenericRpcHandler:
    """Return the handlers of a servicer's methods, which are `answering`.

    A request that can't be read reaches its method as an error, in a stream too. ModelInfer and
    ModelStreamInfer get an InferRequest. An answer may be a message or its bytes.
    """
    service = pb.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
    found = {each.name: _handler_of(each, getattr(servicer, each.name)) for each in service.methods}
    return grpc.method_handlers_generic_handler(SERVICE, found)


def _handler_of(method: MethodDescriptor, behaviour: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    read = _request_decoder(method)
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(behaviour, read, _serialise)
    return grpc.unary_unary_rpc_method_handler(behaviour, read, _serialise)


def _request_decoder(method: MethodDescriptor) -> Callable[[bytes], Any]:
    if method.input_type.full_name == _INFER:
        return read_infer
    return decoder_of(getattr(pb, method.input_type.name).FromString, f"{SERVICE}/{method.name}")


def _serialise(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()

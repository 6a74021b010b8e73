"""Server reflection, v1 and v1alpha: what gRPC's own tools ask to call a server without its files.

grpcio-reflection finds no methods and no enum values, and registers the older version only.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from types import ModuleType
from typing import Any, Final, Protocol

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from coalmine.errors import Overloaded
from coalmine.listener.stream_limit import StreamLimit
from coalmine.listener.symbols import SymbolIndex
from coalmine.status import Context, abort

SERVICE_V1: Final = "grpc.reflection.v1.ServerReflection"
SERVICE_V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
# Each takes up to a message's bytes while it is read; a tool opens one, for a moment.
STREAMS_MAX: Final = 64
# An answer holds its request once more: longer than this is no name of anything here.
_REQUEST_BYTES_MAX: Final = 4_096


class ReflectedMethods(Protocol):
    """What handlers are added to: a server, or what stands in front of one."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Add handlers that look methods up."""
        ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Add the methods of a service."""
        ...


def reflection_limit() -> StreamLimit:
    """Return how many streams of reflection a process has at a time."""
    return StreamLimit("reflection streams", STREAMS_MAX)


def add_reflection(
    server: ReflectedMethods,
    services: Sequence[str],
    files: Sequence[ModuleType],
    limit: StreamLimit,
) -> None:
    """Let callers of `server` ask what `services` look like, by v1 and v1alpha.

    `files` are the generated modules that describe them; health and reflection are always there.
    """
    alpha = _proto_of(pb.DESCRIPTOR)
    described = [_proto_of(each) for each in _descriptors_with_imports(files)]
    index = SymbolIndex([*described, _proto_of(health_pb2.DESCRIPTOR), alpha, _v1_of(alpha)])
    names = (*services, health.SERVICE_NAME, SERVICE_V1ALPHA, SERVICE_V1)
    # The messages of both versions are the same on the wire.
    method: Any = grpc.stream_stream_rpc_method_handler(
        Reflection(names, index, limit).ServerReflectionInfo,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    for each in (SERVICE_V1, SERVICE_V1ALPHA):
        handlers = grpc.method_handlers_generic_handler(each, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handlers,))


class Reflection:
    """Answers what is asked about `services`, from `index`."""

    def __init__(self, services: Iterable[str], index: SymbolIndex, limit: StreamLimit) -> None:
        self._services = [pb.ServiceResponse(name=each) for each in sorted(services)]
        self._index = index
        self._limit = limit

    async def ServerReflectionInfo(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer one question after another. What isn't known is an answer too, not an error."""
        try:
            with self._limit.admit():
                async for each in requests:
                    await context.write(self.answer(each))
        except Overloaded as error:
            await abort(context, error)

    def answer(self, message: bytes) -> pb.ServerReflectionResponse:
        """Return what is told for a serialised request."""
        if len(message) > _REQUEST_BYTES_MAX:
            return _error_response(grpc.StatusCode.INVALID_ARGUMENT, "the name is too long")
        try:
            request = pb.ServerReflectionRequest.FromString(message)
        except DecodeError:
            return _error_response(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")
        answer = self._response_to(request)
        answer.valid_host = request.host
        answer.original_request.CopyFrom(request)
        return answer

    def _response_to(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        index, asked = self._index, request.WhichOneof("message_request")
        extension = request.file_containing_extension
        match asked:
            case "list_services":
                listed = pb.ListServiceResponse(service=self._services)
                return pb.ServerReflectionResponse(list_services_response=listed)
            case "all_extension_numbers_of_type":
                return self._numbers_response(request.all_extension_numbers_of_type)
            case "file_by_filename":
                name = request.file_by_filename
                return self._file_reply(name, f"file '{name}'")
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                return self._file_reply(index.file_of_symbol(symbol), f"symbol '{symbol}'")
            case "file_containing_extension":
                message, number = extension.containing_type, extension.extension_number
                file = index.file_of_extension(message, number)
                return self._file_reply(file, f"extension {number} of '{message}'")
        return _error_response(grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    def _file_reply(self, file: str | None, asked: str) -> pb.ServerReflectionResponse:
        files = None if file is None else self._index.with_imports(file)
        if files is None:
            return _error_response(grpc.StatusCode.NOT_FOUND, f"there is no {asked}")
        response = pb.FileDescriptorResponse(file_descriptor_proto=files)
        return pb.ServerReflectionResponse(file_descriptor_response=response)

    def _numbers_response(self, message: str) -> pb.ServerReflectionResponse:
        numbers = self._index.extension_numbers(message)
        if numbers is None:
            return _error_response(grpc.StatusCode.NOT_FOUND, f"there is no message '{message}'")
        response = pb.ExtensionNumberResponse(base_type_name=message, extension_number=numbers)
        return pb.ServerReflectionResponse(all_extension_numbers_response=response)


def _error_response(code: grpc.StatusCode, text: str) -> pb.ServerReflectionResponse:
    error = pb.ErrorResponse(error_code=code.value[0], error_message=text)
    return pb.ServerReflectionResponse(error_response=error)


# ---------------------------------------------------------------- files


def _descriptors_with_imports(files: Iterable[ModuleType]) -> list[Any]:
    """Return the descriptors of these modules' files, and of all that they import."""
    found = {each.DESCRIPTOR.name: each.DESCRIPTOR for each in files}
    waiting = list(found.values())
    while waiting:
        imports = {each.name: each for each in waiting.pop().dependencies}
        waiting += [each for name, each in imports.items() if name not in found]
        found |= imports
    return list(found.values())


def _proto_of(descriptor: Any) -> FileDescriptorProto:
    return FileDescriptorProto.FromString(descriptor.serialized_pb)


def _v1_of(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Return reflection's file of v1: that of v1alpha, but for its name and package."""
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    return text_format.Parse(text, FileDescriptorProto())

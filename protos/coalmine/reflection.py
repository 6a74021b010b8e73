"""Server reflection, also for package `inference`, whose code lives in a pool of its own."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, Protocol

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

# The messages of both versions are the same; grpcio-reflection registers the older name only.
SERVICE_V1: Final = "grpc.reflection.v1.ServerReflection"


class Methods(Protocol):
    """What handlers are added to: a server, or what stands in front of one."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Add handlers that look methods up."""
        ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Add the methods of a service."""
        ...


def reflect(server: Methods, services: Sequence[str], files: Sequence[ModuleType]) -> None:
    """Let callers of `server` ask what `services` look like, by v1 and v1alpha.

    `files` are the generated modules that describe them; health and reflection are always there.
    """
    pool = DescriptorPool()
    for described in (*files, health_pb2, reflection_pb2):
        pool.AddSerializedFile(described.DESCRIPTOR.serialized_pb)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=pool)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(SERVICE_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handlers,))

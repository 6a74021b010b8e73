"""Server reflection, also for package `inference`, whose code lives in a pool of its own."""

from collections.abc import Sequence
from types import ModuleType
from typing import Final

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

# The messages of both versions are the same; grpcio-reflection registers the older name only.
_V1: Final = "grpc.reflection.v1.ServerReflection"


def reflect(server: grpc.aio.Server, services: Sequence[str], files: Sequence[ModuleType]) -> None:
    """Let callers of `server` ask what `services` look like, by v1 and v1alpha.

    `files` are the generated modules that describe them; health and reflection are always there.
    """
    pool = DescriptorPool()
    for described in (*files, health_pb2, reflection_pb2):
        pool.AddSerializedFile(described.DESCRIPTOR.serialized_pb)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=pool)
    reflection.enable_server_reflection(names, server, pool=pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handlers,))

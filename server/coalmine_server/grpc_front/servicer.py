"""The protocol's twelve methods over gRPC: each calls a service, and its error becomes a status."""
# The names and arguments of the methods are the protocol's, and the services describe them.
# ruff: noqa: ARG002, D102

from functools import partial
from typing import Any

from coalmine.inference import MODEL_STREAM_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.status import Context, answering
from coalmine_server.extensions import Extensions
from coalmine_server.grpc_front.grpc_context import GrpcCallContext
from coalmine_server.grpc_front.streaming import Requests, StreamCalls
from coalmine_server.service import InferenceService
from coalmine_server.wire.requests import InferRequest


class Servicer(pb_grpc.GRPCInferenceServiceServicer):
    """What one listener offers: the core of the protocol, and Triton's extensions."""

    def __init__(self, service: InferenceService, extensions: Extensions) -> None:
        self._service = service
        self._extensions = extensions
        self._streams = StreamCalls(
            partial(service.answer, method=MODEL_STREAM_INFER), service.calls.track_bytes
        )

    def drain(self) -> None:
        """Read no more requests of streams; those that were read are answered."""
        self._streams.drain()

    @answering
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> Any:
        return pb.ServerLiveResponse(live=True)

    @answering
    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> Any:
        return pb.ServerReadyResponse(ready=self._service.is_ready)

    @answering
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> Any:
        is_ready = self._service.is_model_ready(request.name, request.version)
        return pb.ModelReadyResponse(ready=is_ready)

    @answering
    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> Any:
        return self._service.server_metadata()

    @answering
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> Any:
        return self._service.model_metadata(request.name, request.version)

    # ------------------------------------------------------------ inference

    def _answer_infer(self, request: InferRequest, context: Context) -> Any:
        return self._service.infer(request, GrpcCallContext(context))

    async def _serve_stream(self, requests: Requests, context: Context) -> None:
        await self._streams.serve(requests, context)

    # Not of the generated types: handlers.py reads the requests, and answers are bytes.
    ModelInfer: Any = answering(_answer_infer)
    ModelStreamInfer: Any = answering(_serve_stream)

    # ------------------------------------------------------------ extensions

    @answering
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> Any:
        return self._extensions.model_config(request.name, request.version)

    @answering
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> Any:
        return await self._extensions.index(request)

    @answering
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> Any:
        await self._extensions.load(request)
        return pb.RepositoryModelLoadResponse()

    @answering
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> Any:
        await self._extensions.unload(request)
        return pb.RepositoryModelUnloadResponse()

    @answering
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> Any:
        return await self._extensions.statistics(request.name, request.version)

"""The Open Inference Protocol: decode, check, ask the registry, encode."""
# The names and arguments of the methods are the protocol's.
# ruff: noqa: ARG002

from functools import partial
from importlib.metadata import version as version_of
from typing import Any, Final

from coalmine.errors import NotFound
from coalmine.inference import MODEL_INFER, MODEL_STREAM_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.process.answer_gate import AnswerGate
from coalmine.status import Context, answering
from coalmine_server.calls import Call, Calls
from coalmine_server.config import PLATFORM
from coalmine_server.registry import Registry, State
from coalmine_server.signature import TensorSpec
from coalmine_server.streaming import Requests, StreamCalls
from coalmine_server.wire.inputs import check_request
from coalmine_server.wire.requests import InferRequest

# Triton's names for what is beside the core.
EXTENSIONS: Final = ("model_configuration", "model_repository", "schedule_policy", "statistics")


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The six methods of the protocol's core, and ModelInfer in streams."""

    def __init__(self, registry: Registry, calls: Calls, hold: AnswerGate) -> None:
        self._registry = registry
        self._calls = calls
        self._hold = hold
        self._streams = StreamCalls(
            partial(self.answer, method=MODEL_STREAM_INFER), calls.hold_bytes
        )
        self._version = version_of("coalmine")  # from the disk

    # ------------------------------------------------------------ health and metadata

    @answering
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> Any:
        """Return that the process lives."""
        return pb.ServerLiveResponse(live=True)

    @answering
    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> Any:
        """Return whether callers may come, as health "" and /readyz say it."""
        return pb.ServerReadyResponse(ready=self._registry.is_ready)

    @answering
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> Any:
        """Return whether one model is READY; of one that nobody knows, false."""
        try:
            state = self._registry.find(request.name, request.version).state
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=state is State.READY)

    @answering
    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> Any:
        """Return the server's name, version and extensions."""
        return pb.ServerMetadataResponse(
            name="coalmine", version=self._version, extensions=EXTENSIONS
        )

    @answering
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> Any:
        """Return a model's versions, inputs and outputs, with their batch dimension."""
        version = self._registry.find(request.name, request.version)
        version.ready()
        named = [version] if request.version else self._registry.versions(request.name)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(each.file.version) for each in named],
            platform=PLATFORM,
            inputs=[_metadata(each) for each in version.signature.inputs],
            outputs=[_metadata(each) for each in version.signature.outputs],
            properties=version.file.properties,
        )

    # ------------------------------------------------------------ inference

    async def answer(
        self, request: InferRequest, context: Context, method: str = MODEL_INFER
    ) -> bytes:
        """Return the serialised ModelInferResponse."""
        call = self._calls.begin(request, context, method)
        try:
            response = await self._infer(call)
            if self._hold.is_on:
                await self._hold.wait(context.time_remaining())
        except BaseException as error:
            self._calls.end(call, error)
            raise
        self._calls.end(call)
        return response

    async def infer(self, request: InferRequest, context: Context) -> bytes:
        """Return the answer to a call of its own: it is in flight until it is read."""
        answer = await self.answer(request, context)
        return self._calls.count_until_read(request, answer, context)

    async def stream(self, requests: Requests, context: Context) -> None:
        """Answer each request of a stream as ModelInfer does; the responses keep its order."""
        await self._streams.serve(requests, context)

    # Not of the generated types: methods.py reads the requests, and answers are bytes.
    ModelInfer: Any = answering(infer)
    ModelStreamInfer: Any = answering(stream)

    def drain(self) -> None:
        """Take no more requests, alone or in streams; what is in flight goes on."""
        self._registry.drain()
        self._streams.drain()

    async def _infer(self, call: Call) -> bytes:
        asked = call.request.message
        version = self._registry.find(asked.model_name, asked.model_version)
        call.is_for(version)
        self._calls.check_bounds()
        batcher = version.ready()
        checked = check_request(version.signature, call.request)
        deadline_ns = call.lasts_no_longer_than(checked.timeout_ns)
        call.pending = batcher.enter(checked, deadline_ns, call.traced)
        return self._calls.check_answer(version, await batcher.outcome(call.pending))


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )

"""The Open Inference Protocol's core, whatever brings its calls: find, check, queue, answer.

Errors are those of `coalmine.errors`. A front turns them into what its callers read.
"""

from importlib.metadata import version as version_of
from typing import Final

from coalmine.errors import NotFound
from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine.process.answer_gate import AnswerGate
from coalmine_server.calls import Call, CallAccount, CallContext
from coalmine_server.config import PLATFORM
from coalmine_server.registry import Registry
from coalmine_server.signature import TensorSpec
from coalmine_server.wire.inputs import check_request
from coalmine_server.wire.requests import InferRequest

# Triton's names for what is beside the core.
EXTENSIONS: Final = ("model_configuration", "model_repository", "schedule_policy", "statistics")


class InferenceService:
    """What every front offers: health, metadata and inference."""

    def __init__(self, registry: Registry, calls: CallAccount, gate: AnswerGate) -> None:
        self.calls = calls
        self._registry = registry
        self._gate = gate
        self._version = version_of("coalmine")  # from the disk

    # ------------------------------------------------------------ health and metadata

    @property
    def is_ready(self) -> bool:
        """Whether callers may come, as health "" and /readyz say it."""
        return self._registry.is_ready

    def is_model_ready(self, name: str, version: str) -> bool:
        """Return whether a model is READY; false for one that is unknown."""
        try:
            return self._registry.find_version(name, version).is_ready
        except NotFound:
            return False

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return pb.ServerMetadataResponse(
            name="coalmine", version=self._version, extensions=EXTENSIONS
        )

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """Return a model's versions, inputs and outputs, with their batch dimension."""
        found = self._registry.find_version(name, version)
        found.ready_batcher()
        named = [found] if version else self._registry.versions(name)
        return pb.ModelMetadataResponse(
            name=name,
            versions=[str(each.file.version) for each in named],
            platform=PLATFORM,
            inputs=[_tensor_metadata(each) for each in found.signature.inputs],
            outputs=[_tensor_metadata(each) for each in found.signature.outputs],
            properties=found.file.properties,
        )

    # ------------------------------------------------------------ inference

    async def infer(self, request: InferRequest, context: CallContext) -> bytes:
        """Return the answer to a single request, which is in flight until the answer is read."""
        answer = await self.answer(request, context)
        self.calls.count_until_read(request, answer, context)
        return answer

    async def answer(
        self, request: InferRequest, context: CallContext, method: str = MODEL_INFER
    ) -> bytes:
        """Return the serialised ModelInferResponse."""
        call = self.calls.begin(request, context, method)
        try:
            answer = await self._infer(call)
            if self._gate.is_on:
                await self._gate.wait(context.remaining_s())
        except BaseException as error:
            self.calls.end(call, error)
            raise
        self.calls.end(call)
        return answer

    async def _infer(self, call: Call) -> bytes:
        message = call.request.message
        version = self._registry.find_version(message.model_name, message.model_version)
        call.assign_version(version)
        self.calls.check_bounds()
        batcher = version.ready_batcher()
        checked = check_request(version.signature, call.request)
        call.shorten_deadline(checked.timeout_ns)
        call.pending = batcher.enqueue(checked, call.deadline_ns, call.traced)
        answer = await batcher.wait_for_answer(call.pending)
        self.calls.check_answer_size(version, answer)
        return answer


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )

"""Triton's methods beside the core: what a model is, and what there is; the rest is refused."""
# The names and arguments of the methods are the protocol's.
# ruff: noqa: ARG002

from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any, Final

from coalmine.errors import NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.status import Context, answering, streaming
from coalmine_server.config import PLATFORM, ModelConfig, TensorConfig, VersionPolicy
from coalmine_server.registry import Registry, State, Version

# Triton's words for our states.
_STATES: Final = MappingProxyType(
    {
        State.LOADING: "LOADING",
        State.READY: "READY",
        State.DRAINING: "UNLOADING",
        State.GONE: "UNAVAILABLE",
    }
)


class Extensions(pb_grpc.GRPCInferenceServiceServicer):
    """ModelConfig and RepositoryIndex."""

    def __init__(self, registry: Registry) -> None:
        self._served = registry

    @answering
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> Any:
        """Return a model's config in Triton's words."""
        version = self._served.find(request.name, request.version)
        return pb.ModelConfigResponse(config=_config(request.name, version.config))

    @answering
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> Any:
        """Return every version that is served or was to be, and its state."""
        rows = [
            _index(each)
            for each in self._served.versions()
            if each.state is State.READY or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=rows)

    # ------------------------------------------------------------ not offered

    @answering
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> Any:
        """Refuse: the figures are in /metrics."""
        raise NotOffered("ModelStatistics is not offered: the figures are at /metrics over HTTP")

    @answering
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> Any:
        """Refuse: models are loaded when the server starts."""
        raise NotOffered("RepositoryModelLoad is not offered: models are loaded at the start")

    @answering
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> Any:
        """Refuse: models are served until the server stops."""
        raise NotOffered("RepositoryModelUnload is not offered: models stay until the server stops")

    @streaming
    async def ModelStreamInfer(
        self, request: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[Any]:
        """Refuse: every request is a call of its own."""
        raise NotOffered("ModelStreamInfer is not offered: call ModelInfer for each request")
        yield  # what makes it a stream


def _config(name: str, config: ModelConfig) -> pb.ModelConfig:
    found = pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        version_policy=_policy(config.versions),
        max_batch_size=config.max_batch_size,
        input=[_input(each) for each in config.inputs],
        output=[_output(each) for each in config.outputs],
        backend="pytorch",
    )
    if config.max_batch_size:
        found.dynamic_batching.max_queue_delay_microseconds = config.batching.max_delay // 1_000
    return found


def _policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.all:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    if policy.only is not None:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=policy.only))
    return pb.ModelVersionPolicy(
        latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest or 1)
    )


def _input(tensor: TensorConfig) -> pb.ModelInput:
    return pb.ModelInput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape)


def _output(tensor: TensorConfig) -> pb.ModelOutput:
    return pb.ModelOutput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape)


def _data_type(tensor: TensorConfig) -> "pb.DataType.ValueType":  # only the stubs have it
    return pb.DataType.Value(f"TYPE_{tensor.datatype}")


def _index(version: Version) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=version.file.model, version=str(version.file.version), state=_STATES[version.state]
    )

"""Triton's methods beside the core: what a model is, what there is, and changing that."""
# The names and arguments of the methods are the protocol's.
# ruff: noqa: ARG002

from typing import Any, Final, Protocol

from coalmine.errors import InvalidRequest, NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.status import Context, answering
from coalmine.tensors import BYTES
from coalmine_server.config import PLATFORM, ModelConfig, TensorConfig, VersionPolicy
from coalmine_server.overview import Overview
from coalmine_server.registry import Registry

_DEPENDENTS: Final = "unload_dependents"


class Changes(Protocol):
    """Where what is served is changed."""

    async def load(self, name: str) -> None:
        """Make a model what its folder says. Raises NotFound or LoadFailed."""
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises NotFound."""
        ...


class NoChanges:
    """What is served can't be changed at this listener."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def load(self, name: str) -> None:
        """Refuse."""
        raise NotOffered(f"loading is not offered: {self._reason}")

    async def unload(self, name: str) -> None:
        """Refuse."""
        raise NotOffered(f"unloading is not offered: {self._reason}")


class Extensions(pb_grpc.GRPCInferenceServiceServicer):
    """The methods that Triton adds, but for inference over a stream."""

    def __init__(self, registry: Registry, changes: Changes, overview: Overview) -> None:
        self._served = registry
        self._changes = changes
        self._overview = overview

    @answering
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> Any:
        """Return a model's config in Triton's words."""
        version = self._served.find(request.name, request.version)
        return pb.ModelConfigResponse(config=_config(request.name, version.config))

    @answering
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> Any:
        """Return every version that is served, was or is to be, its state and why."""
        _check_repository(request.repository_name)
        rows = await self._overview.index()
        return pb.RepositoryIndexResponse(
            models=[each for each in rows if each.state == "READY" or not request.ready]
        )

    @answering
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> Any:
        """Load a model, or what has changed of it; return once it serves."""
        _check_repository(request.repository_name)
        for name in request.parameters:
            raise NotOffered(f"parameter '{name}' is not offered: a model is what its folder says")
        await self._changes.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    @answering
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> Any:
        """Unload a model; return once what it had begun is answered, and its memory is back."""
        _check_repository(request.repository_name)
        for name in request.parameters:
            if name != _DEPENDENTS:  # tritonclient always sends it; nothing depends on a model here
                raise NotOffered(f"parameter '{name}' is not offered")
        await self._changes.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @answering
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> Any:
        """Return what was counted of one version, of all of a model's, or of all there are."""
        if request.version and not request.name:
            raise InvalidRequest(f"version '{request.version}' of which model? The name is empty")
        found = await self._overview.statistics(request.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=found)


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
    name = "STRING" if tensor.datatype == BYTES else tensor.datatype
    return pb.DataType.Value(f"TYPE_{name}")


def _check_repository(name: str) -> None:
    if name:
        raise NotOffered("repository_name is not offered: there is one repository")

"""Triton's methods beside the core: configurations, the repository, loading and statistics."""

from typing import Final, Protocol

from coalmine.errors import InvalidRequest, NotOffered
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import BYTES
from coalmine_server.config import PLATFORM, ModelConfig, TensorConfig, VersionPolicy
from coalmine_server.overview import Overview
from coalmine_server.registry import Registry

_DEPENDENTS: Final = "unload_dependents"


class ModelLoading(Protocol):
    """Loads and unloads models."""

    async def load(self, name: str) -> None:
        """Make a model what its folder says. Raises NotFound or LoadFailed."""
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises NotFound."""
        ...


class LoadingRefused:
    """Refuses to load and unload: this listener doesn't offer it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def load(self, name: str) -> None:  # noqa: ARG002 - all are refused
        """Refuse."""
        raise NotOffered(f"loading is not offered: {self._reason}")

    async def unload(self, name: str) -> None:  # noqa: ARG002 - all are refused
        """Refuse."""
        raise NotOffered(f"unloading is not offered: {self._reason}")


class Extensions:
    """What Triton adds to the protocol: configurations, the repository and statistics."""

    def __init__(self, registry: Registry, loading: ModelLoading, overview: Overview) -> None:
        self._served = registry
        self._loading = loading
        self._overview = overview

    def model_config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """Return a model's config in Triton's words."""
        found = self._served.find_version(name, version)
        return pb.ModelConfigResponse(config=_config_message(name, found.config))

    async def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Return every version that is served, was or is to be, its state and why."""
        _refuse_repository_name(request.repository_name)
        rows = await self._overview.index()
        return pb.RepositoryIndexResponse(
            models=[each for each in rows if each.state == "READY" or not request.ready]
        )

    async def load(self, request: pb.RepositoryModelLoadRequest) -> None:
        """Load a model, or what has changed of it; return once it serves."""
        _refuse_repository_name(request.repository_name)
        for name in request.parameters:
            raise NotOffered(f"parameter '{name}' is not offered: a model is what its folder says")
        await self._loading.load(request.model_name)

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> None:
        """Unload a model; return once what it had begun is answered, and its memory is back."""
        _refuse_repository_name(request.repository_name)
        for name in request.parameters:
            if name != _DEPENDENTS:  # tritonclient always sends it; nothing depends on a model here
                raise NotOffered(f"parameter '{name}' is not offered")
        await self._loading.unload(request.model_name)

    async def statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """Return what was counted of one version, of all of a model's, or of all there are."""
        if version and not name:
            raise InvalidRequest(f"version '{version}' of which model? The name is empty")
        rows = await self._overview.statistics(name, version)
        return pb.ModelStatisticsResponse(model_stats=rows)


def _config_message(name: str, config: ModelConfig) -> pb.ModelConfig:
    found = pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        version_policy=_policy_message(config.versions),
        max_batch_size=config.max_batch_size,
        input=[_input_message(each) for each in config.inputs],
        output=[_output_message(each) for each in config.outputs],
        backend="pytorch",
    )
    if config.max_batch_size:
        found.dynamic_batching.max_queue_delay_microseconds = config.batching.max_delay // 1_000
    return found


def _policy_message(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.all:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    if policy.only is not None:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=policy.only))
    return pb.ModelVersionPolicy(
        latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest or 1)
    )


def _input_message(tensor: TensorConfig) -> pb.ModelInput:
    return pb.ModelInput(name=tensor.name, data_type=_data_type_value(tensor), dims=tensor.shape)


def _output_message(tensor: TensorConfig) -> pb.ModelOutput:
    return pb.ModelOutput(name=tensor.name, data_type=_data_type_value(tensor), dims=tensor.shape)


def _data_type_value(tensor: TensorConfig) -> "pb.DataType.ValueType":  # only the stubs have it
    name = "STRING" if tensor.datatype == BYTES else tensor.datatype
    return pb.DataType.Value(f"TYPE_{name}")


def _refuse_repository_name(name: str) -> None:
    if name:
        raise NotOffered("repository_name is not offered: there is one repository")

"""The models of this process and their statistics, as messages of the protocol."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from coalmine.inference import inference_pb2 as pb
from coalmine_server.figures.message import statistics_of
from coalmine_server.registry import Registry, State, Version

Row = pb.RepositoryIndexResponse.ModelIndex
# The bytes that a model's version takes, by device.
Memory = Callable[[str, str], Mapping[str, int]]

# Triton's words for our states.
_STATES: Final = MappingProxyType(
    {
        State.LOADING: "LOADING",
        State.READY: "READY",
        State.DRAINING: "UNLOADING",
        State.GONE: "UNAVAILABLE",
        State.FAILED: "UNAVAILABLE",
    }
)


class Overview(Protocol):
    """Where the index and the statistics come from."""

    async def index(self) -> Sequence[Row]:
        """Return every version that is served, was or is to be, its state and why."""
        ...

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        """Return what was counted of one version, of all of a model's, or of all there are.

        Raises NotFound.
        """
        ...


class LocalOverview:
    """The index and the statistics of this process alone."""

    def __init__(self, registry: Registry, memory: Memory) -> None:
        self._served = registry
        self._memory = memory

    async def index(self) -> Sequence[Row]:
        """Return a row for every version that is known."""
        return index_of(self._served)

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        """Return what was counted of one version, of all of a model's, or of all there are."""
        if version:
            found = [self._served.find_version(name, version)]
        else:
            found = list(self._served.versions(name or None))
        return [self._message_of(each) for each in found]

    def _message_of(self, version: Version) -> pb.ModelStatistics:
        model, number = version.file.model, str(version.file.version)
        return statistics_of(model, number, version.statistics, self._memory(model, number))


def index_of(registry: Registry) -> list[Row]:
    """Return a row for every known version, and for every model that could never be read.

    A version that serves also shows why the last change of its model failed.
    """
    rows = [
        Row(
            name=version.file.model,
            version=str(version.file.version),
            state=_STATES[version.state],
            reason=version.reason or registry.failure_reason(version.file.model),
        )
        for name in registry.names
        for version in (*registry.served_model(name).versions, *registry.incoming(name))
    ]
    unread = (
        Row(name=name, state="UNAVAILABLE", reason=registry.failure_reason(name))
        for name in registry.failed_names
    )
    return [*rows, *unread]

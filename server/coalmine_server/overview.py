"""What is served, and what was counted of it: by this process, in the protocol's words."""

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


class Own:
    """Of this process alone."""

    def __init__(self, registry: Registry, memory: Memory) -> None:
        self._served = registry
        self._memory = memory

    async def index(self) -> Sequence[Row]:
        """Return a row for every version that is known."""
        return index_of(self._served)

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        """Return what was counted of one version, of all of a model's, or of all there are."""
        if version:
            found = [self._served.find(name, version)]
        else:
            found = list(self._served.versions(name or None))
        return [self._counted(each) for each in found]

    def _counted(self, version: Version) -> pb.ModelStatistics:
        model, number = version.file.model, str(version.file.version)
        return statistics_of(model, number, version.metrics, self._memory(model, number))


def index_of(registry: Registry) -> list[Row]:
    """Return a row for every version that is known, and one for a model that never could be read.

    A version that serves carries the reason too for which the last change of its model failed.
    """
    rows = [
        Row(
            name=version.file.model,
            version=str(version.file.version),
            state=_STATES[version.state],
            reason=version.reason or registry.trouble(version.file.model),
        )
        for name in registry.names
        for version in (*registry.shelf(name).versions, *registry.incoming(name))
    ]
    unread = (
        Row(name=name, state="UNAVAILABLE", reason=registry.trouble(name))
        for name in registry.troubled
    )
    return [*rows, *unread]

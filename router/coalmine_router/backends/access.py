"""How a backend is reached: what its targets and its files say."""

from collections.abc import Callable
from typing import Any

import grpc

from coalmine_router.backends.targets import Endpoint, Lookup, read
from coalmine_router.channels import BackendFiles
from coalmine_router.metadata import Pair
from coalmine_router.table import Backend

# As channels.open_channel.
OpensChannel = Callable[..., grpc.aio.Channel]


class Access:
    """What one backend of a table says. Raises StartError where its targets or files are wrong."""

    def __init__(self, backend: Backend, open_channel: OpensChannel) -> None:
        self.backend = backend
        self.stands_for: list[Endpoint | Lookup] = [
            each for target in backend.targets for each in read(target)
        ]
        self._open_channel = open_channel
        self._files = BackendFiles(backend)
        self.has_files = self._files.are_any

    @property
    def shown(self) -> tuple[Pair, ...]:
        """The metadata that shows the router's token."""
        return self._files.shown

    def open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """Return a channel to one address, by what the files last said."""
        given: dict[str, Any] = {"authority": endpoint.authority}
        if self._files.credentials is not None:
            given["credentials"] = self._files.credentials
        return self._open_channel(self.backend, endpoint.target, **given)

    def look(self) -> tuple[bool, bool]:
        """Read files again that changed; return whether credentials and token are new ones."""
        return self._files.look()

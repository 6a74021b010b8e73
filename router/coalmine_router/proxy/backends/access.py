"""How a backend is reached: what its targets and its files say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from coalmine.watched import Watched
from coalmine_router.channels import credentials_of, tls_files, token_of
from coalmine_router.metadata import Pair
from coalmine_router.proxy.backends.targets import Endpoint, Lookup, read
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
        token_files = [Path(backend.token_file)] if backend.token_file else []
        self._credentials = Watched(tls_files(backend), lambda: credentials_of(backend))
        self._token = Watched(token_files, lambda: token_of(backend))
        self.has_files = bool(token_files or tls_files(backend))

    @property
    def shown(self) -> tuple[Pair, ...]:
        """The metadata that shows the router's token."""
        return self._token.value

    def open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """Return a channel to one address, by what the files last said."""
        given: dict[str, Any] = {"authority": endpoint.authority}
        if self._credentials.value is not None:
            given["credentials"] = self._credentials.value
        return self._open_channel(self.backend, endpoint.target, **given)

    def look(self) -> "tuple[bool, bool]":
        """Read files again that changed; return whether credentials and token are new ones."""
        return self._credentials.look(), self._token.look()

"""The way to reach a backend: its targets and its files."""

from collections.abc import Callable
from typing import Any

import grpc

from coalmine.errors import StartError
from coalmine_router.backends.targets import Endpoint, Lookup, parse_target
from coalmine_router.channels import BackendFiles
from coalmine_router.metadata import Pair
from coalmine_router.table import Backend

# As channels.open_channel.
OpensChannel = Callable[..., grpc.aio.Channel]


class BackendAccess:
    """The targets and files of one backend. Raises StartError where either is wrong.

    A lenient one has no targets as long as its files are wrong. `trouble` has the reason.
    """

    def __init__(
        self, backend: Backend, open_channel: OpensChannel, *, is_lenient: bool = False
    ) -> None:
        self.backend = backend
        self.trouble = ""
        self._targets = [each for target in backend.targets for each in parse_target(target)]
        self._open_channel = open_channel
        self._files: BackendFiles | None = None
        try:
            self._files = BackendFiles(backend)
        except StartError as error:
            if not is_lenient:
                raise
            self.trouble = str(error)

    @property
    def parsed_targets(self) -> list[Endpoint | Lookup]:
        """The endpoints and names of its targets."""
        return self._targets if self._files is not None else []

    @property
    def has_files(self) -> bool:
        """Whether it has files that may change."""
        return self._files is None or self._files.has_any

    @property
    def token_metadata(self) -> tuple[Pair, ...]:
        """The metadata that shows the router's token."""
        return self._files.token_metadata if self._files is not None else ()

    def open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """Return a channel to one address, with the files as last read."""
        given: dict[str, Any] = {"authority": endpoint.authority}
        if self._files is not None and self._files.credentials is not None:
            given["credentials"] = self._files.credentials
        return self._open_channel(self.backend, endpoint.target, **given)

    def reread_files(self) -> tuple[bool, bool]:
        """Read changed files again. Return whether the credentials and the token are new."""
        if self._files is not None:
            return self._files.reread_files()
        try:
            self._files = BackendFiles(self.backend)
        except StartError as error:
            self.trouble = str(error)
            return False, False
        self.trouble = ""
        return True, True

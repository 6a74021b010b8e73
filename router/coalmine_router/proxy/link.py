"""The way to the control process: a channel, and the token that is shown there."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from coalmine.access.credentials import channel_credentials
from coalmine.access.target import Shown, open_aio_channel, showing, shown, shown_from
from coalmine.access.tls_files import Tls
from coalmine.process.watched_files import Watched, follow
from coalmine_router.channels import CONTROL_OPTIONS

# How long a connection is waited for before the files are asked whether it is still the right one.
_CONNECTING_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where the control process is, and how a proxy is let in there.

    `token_file` overrules `token`. A unix: address is a socket that only this user can open:
    neither TLS nor a token is used there.
    """

    target: str
    tls: Tls | None = None
    token: str | None = None
    token_file: Path | None = None
    token_in_plaintext: bool = False

    @property
    def is_socket(self) -> bool:
        """Whether it is a file on this machine."""
        return self.target.startswith("unix:")


class ControlLink:
    """A channel to the control process, opened again where its files have changed.

    Each stream that is begun uses the newest files; streams that are open go on.
    Raises StartError for files that are wrong from the start.
    """

    def __init__(self, address: ControlAddress) -> None:
        self._target = address.target
        self._tls = None if address.is_socket else address.tls
        self._credentials = Watched(_files(self._tls), self._read_credentials)
        token_file = None if address.is_socket else address.token_file
        self._shown = Watched([] if token_file is None else [token_file], lambda: _shown(address))
        self._opened_with = self._credentials.value
        self._channel = self._open()

    def channel(self) -> grpc.aio.Channel:
        """Return the channel for the next stream: by the newest files, and showing the token."""
        return showing(self._newest(), self._shown.value)

    async def connected(self) -> None:
        """Return once there is a connection."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONNECTING_S):
                    return await self._newest().channel_ready()

    async def follow_files(self) -> None:
        """Keep to what the files say, until cancelled."""
        await follow(self._credentials, self._shown)

    async def close(self) -> None:
        """Close the channel; streams that are open are cancelled."""
        await self._channel.close()

    def _newest(self) -> grpc.aio.Channel:
        """Return the channel; a new one where the files are others than when it was opened.

        The one before lives as long as its streams do: gRPC closes it once nobody holds it.
        """
        if self._credentials.value is not self._opened_with:
            self._opened_with = self._credentials.value
            self._channel = self._open()
        return self._channel

    def _open(self) -> grpc.aio.Channel:
        return open_aio_channel(
            self._target, self._tls, CONTROL_OPTIONS, credentials=self._opened_with
        )

    def _read_credentials(self) -> grpc.ChannelCredentials | None:
        return None if self._tls is None else channel_credentials(self._tls)


def _files(tls: Tls | None) -> list[Path]:
    if tls is None:
        return []
    return [each for each in (tls.ca, tls.cert, tls.key) if each is not None]


def _shown(address: ControlAddress) -> Shown:
    """Return the metadata that shows the token, if any. Raises StartError."""
    if address.is_socket:
        return ()
    target, tls, in_plaintext = address.target, address.tls, address.token_in_plaintext
    if address.token_file is not None:
        return shown_from(address.token_file, target, tls, in_plaintext=in_plaintext)
    return shown(address.token, target, tls, in_plaintext=in_plaintext)

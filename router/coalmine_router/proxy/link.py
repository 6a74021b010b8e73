"""The way to the control process: a channel, and the token for it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import grpc

from coalmine.access.credentials import channel_credentials
from coalmine.access.target import Target, with_metadata
from coalmine.access.tls_files import Tls
from coalmine.process.watched_files import Watched, follow
from coalmine_router.channels import CONTROL_OPTIONS

# The time to wait for a connection before the files are checked for another one.
_CONNECTING_S: Final = 1.0


class ControlLink:
    """A channel to the control process. It opens another one when its files have changed.

    Each new stream uses the newest files; open streams go on. A socket (unix:) needs neither TLS
    nor a token, because only this user can open it. Raises StartError for files that are wrong from
    the start.
    """

    def __init__(self, target: Target) -> None:
        if target.address.startswith("unix:"):
            target = Target(target.address)
        self._target = target
        self._credentials = Watched(_tls_files(target.tls), self._read_credentials)
        token_files = [] if target.token_file is None else [target.token_file]
        self._metadata = Watched(token_files, target.token_metadata)
        self._opened_with = self._credentials.value
        self._channel = self._open_channel()

    def channel(self) -> grpc.aio.Channel:
        """Return the channel for the next stream, with the newest files and the token."""
        return with_metadata(self._renew_channel(), self._metadata.value)

    async def wait_until_connected(self) -> None:
        """Return once there is a connection."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONNECTING_S):
                    return await self._renew_channel().channel_ready()

    async def follow_files(self) -> None:
        """Read changed files again, until cancelled."""
        await follow(self._credentials, self._metadata)

    async def close(self) -> None:
        """Close the channel. gRPC cancels its open streams."""
        await self._channel.close()

    def _renew_channel(self) -> grpc.aio.Channel:
        """Return the channel; a new one where the files have changed since it was opened.

        The old channel lives as long as its streams: gRPC closes it once nothing refers to it.
        """
        if self._credentials.value is not self._opened_with:
            self._opened_with = self._credentials.value
            self._channel = self._open_channel()
        return self._channel

    def _open_channel(self) -> grpc.aio.Channel:
        return self._target.open_aio_channel(CONTROL_OPTIONS, credentials=self._opened_with)

    def _read_credentials(self) -> grpc.ChannelCredentials | None:
        tls = self._target.tls
        return None if tls is None else channel_credentials(tls)


def _tls_files(tls: Tls | None) -> list[Path]:
    if tls is None:
        return []
    return [each for each in (tls.ca, tls.cert, tls.key) if each is not None]

"""Channels to backends: the options that every hop shares."""

from collections.abc import Sequence
from typing import Any, Final

import grpc

from coalmine.limits import MESSAGE_LIMITS
from coalmine_router.table import Backend

# Of a request with its answer, that are copied for shadows.
COPY_BYTES_MAX: Final = 16 * 1024 * 1024
# A batch of reports may end with one that carries such a copy.
REPORTS_BYTES_MAX: Final = 2 * COPY_BYTES_MAX

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *MESSAGE_LIMITS,
    # A backend that comes back is found within a second, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Whoever answers is chosen by the router alone, never by a service config from DNS.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
)


# A peer whose machine is gone says nothing more: a stream would wait for it as long as TCP does.
_ALIVE_MS: Final = 10_000
CONTROL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_send_message_length", REPORTS_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", _ALIVE_MS),
    ("grpc.keepalive_timeout_ms", _ALIVE_MS),
    ("grpc.http2.ping_timeout_ms", _ALIVE_MS),
)
CONTROL_SERVER_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", REPORTS_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # or a second router would silently take half of the calls
    ("grpc.keepalive_time_ms", _ALIVE_MS),
    ("grpc.keepalive_timeout_ms", _ALIVE_MS),
    ("grpc.http2.ping_timeout_ms", _ALIVE_MS),
    # Else a server takes so many pings for an attack, and closes the connection.
    ("grpc.http2.min_ping_interval_without_data_ms", _ALIVE_MS // 2),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """Return a channel to one target of a backend. It connects when it is first used."""
    # A pool of its own: else channels with equal options share one connection across parts.
    return grpc.aio.insecure_channel(
        target, options=[*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    )


def address_of(target: str) -> str:
    """Return `host:port` of a gRPC target such as dns:///host:port."""
    return target.rpartition("/")[2] or target


class Channels:
    """One channel a target, opened when first asked for; those of a gone table can be closed."""

    def __init__(self) -> None:
        self._open: dict[str, grpc.aio.Channel] = {}

    def channel(self, target: str) -> grpc.aio.Channel:
        """Return the channel to `target`."""
        found = self._open.get(target)
        if found is None:
            found = self._open[target] = open_channel(target)
        return found

    async def keep_only(self, backends: Sequence[Backend]) -> None:
        """Close the channels to targets that no backend has."""
        kept = {target for backend in backends for target in backend.targets}
        for target in [each for each in self._open if each not in kept]:
            await self._open.pop(target).close(grace=None)

    async def close(self) -> None:
        """Close them all; calls under way are cancelled."""
        await self.keep_only(())

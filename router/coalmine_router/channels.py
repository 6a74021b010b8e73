"""Channels to backends: the options that every hop shares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from coalmine.calling import Shown, shown_from
from coalmine.credentials import channel_credentials
from coalmine.limits import MESSAGE_LIMITS, METADATA_BYTES_DEFAULT, metadata_limits
from coalmine.security import Tls
from coalmine_router.table import Backend, BackendTls

# Of a request with its answer, that are copied for shadows.
COPY_BYTES_MAX: Final = 16 * 1024 * 1024
# A batch of reports may end with one that carries such a copy.
REPORTS_BYTES_MAX: Final = 2 * COPY_BYTES_MAX

# What the router adds to an answer: the variant, the revision, and that it was the router's own.
_ADDED_BYTES: Final = 256

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *MESSAGE_LIMITS,
    # What is taken from a backend must be taken by a caller too, with what is added on the way.
    *metadata_limits(METADATA_BYTES_DEFAULT - _ADDED_BYTES),
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


def open_channel(
    backend: Backend,
    target: str,
    *,
    authority: str = "",
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Return a channel to one target of a backend. It connects when it is first used.

    `authority`: whom to ask for there, and whose certificate to expect, where that isn't the
    target. `credentials`: what `credentials_of` read before. Raises StartError where the backend's
    files are wrong.
    """
    # A pool of its own: else channels with equal options share one connection across parts.
    options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    if backend.tls is not None and backend.tls.server_name:
        # Asked for as well: gRPC fails calls that ask for another than who was verified.
        options.append(("grpc.ssl_target_name_override", backend.tls.server_name))
    elif authority:
        options.append(("grpc.default_authority", authority))
    if backend.tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    read = credentials or channel_credentials(_tls(backend.tls))
    return grpc.aio.secure_channel(target, read, options=options)


def credentials_of(backend: Backend) -> grpc.ChannelCredentials | None:
    """Return what a backend's TLS files say; None: plaintext. Raises StartError."""
    return None if backend.tls is None else channel_credentials(_tls(backend.tls))


def tls_files(backend: Backend) -> list[Path]:
    """Return the files that `credentials_of` reads."""
    tls = backend.tls
    return [] if tls is None else [Path(each) for each in (tls.ca, tls.cert, tls.key) if each]


def token_of(backend: Backend) -> Shown:
    """Return the metadata that shows a backend the router's token. Raises StartError."""
    if not backend.token_file:
        return ()
    # Whether it may travel in plaintext is the operator's word: the file is named on purpose.
    return shown_from(Path(backend.token_file), backend.targets[0], anywhere=True)


def address_of(target: str) -> str:
    """Return `host:port` of a gRPC target such as dns:///host:port."""
    return target.rpartition("/")[2] or target


def _tls(tls: BackendTls) -> Tls:
    ca, cert, key = (Path(each) if each else None for each in (tls.ca, tls.cert, tls.key))
    return Tls(ca, cert, key, tls.server_name or None)


class Channels:
    """One channel a target, opened when first asked for, beside the hot path."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, BackendTls | None], grpc.aio.Channel] = {}

    def channel(self, backend: Backend, target: str) -> grpc.aio.Channel:
        """Return the channel to `target` of `backend`. Raises StartError for its wrong files."""
        key = target, backend.tls
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = open_channel(backend, target)
        return found

    async def close(self) -> None:
        """Close them all; calls under way are cancelled."""
        while self._open:
            await self._open.popitem()[1].close(grace=None)

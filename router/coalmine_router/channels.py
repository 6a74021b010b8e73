"""Channels to backends: the options that every hop shares."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from coalmine.access.credentials import channel_credentials
from coalmine.access.target import Target, TokenMetadata
from coalmine.access.tls_files import Tls
from coalmine.limits import FLOOD_LIMITS, MESSAGE_LIMITS, PING_LIMITS, metadata_limits
from coalmine.process.watched_files import Watched
from coalmine_router.table import Backend, BackendTls

# Of a request with its answer, that are copied for shadows.
COPY_BYTES_MAX: Final = 16 * 1024 * 1024
# A batch of reports may end with one that carries such a copy.
REPORTS_BYTES_MAX: Final = 2 * COPY_BYTES_MAX

# Over that, gRPC would make RESOURCE_EXHAUSTED of an error that says more. A traceback is as long;
# what callers can't take of it is cut on the way to them.
_METADATA_BYTES_MAX: Final = 64 * 1024

# A backend says how many streams a connection may have, often 100: over that, calls would wait in
# our gRPC. It opens another connection then (gRFC A105; since gRPC 1.84), up to so many an address.
_CONNECTIONS_MAX: Final = 64
_SCALING: Final = (
    ("grpc.max_connections_per_subchannel_cap", _CONNECTIONS_MAX),
    (
        "grpc.service_config",
        json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": _CONNECTIONS_MAX}}),
    ),
)

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *MESSAGE_LIMITS,
    *metadata_limits(_METADATA_BYTES_MAX),
    # A backend that comes back is found within a second, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Whoever answers is chosen by the router alone, never by a service config from DNS.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    *_SCALING,
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
    *FLOOD_LIMITS,
    *PING_LIMITS,
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
    read = credentials or channel_credentials(_tls_with_paths(backend.tls))
    return grpc.aio.secure_channel(target, read, options=options)


def credentials_of(backend: Backend) -> grpc.ChannelCredentials | None:
    """Return what a backend's TLS files say; None: plaintext. Raises StartError."""
    return None if backend.tls is None else channel_credentials(_tls_with_paths(backend.tls))


def tls_files(backend: Backend) -> list[Path]:
    """Return the files that `credentials_of` reads."""
    tls = backend.tls
    return [] if tls is None else [Path(each) for each in (tls.ca, tls.cert, tls.key) if each]


def token_of(backend: Backend) -> TokenMetadata:
    """Return the metadata that shows a backend the router's token. Raises StartError."""
    if not backend.token_file:
        return ()
    # Whether it may travel in plaintext is the operator's word: the file is named on purpose.
    file = Path(backend.token_file)
    return Target(backend.targets[0], token_file=file, token_in_plaintext=True).token_metadata()


def tls_of(backend: Backend) -> Tls | None:
    """Return the files by which a backend is called; None: plaintext."""
    return None if backend.tls is None else _tls_with_paths(backend.tls)


def _tls_with_paths(tls: BackendTls) -> Tls:
    ca, cert, key = (Path(each) if each else None for each in (tls.ca, tls.cert, tls.key))
    return Tls(ca, cert, key, tls.server_name or None)


class BackendFiles:
    """What a backend's files say. Raises StartError where they are wrong from the start."""

    def __init__(self, backend: Backend) -> None:
        token = [Path(backend.token_file)] if backend.token_file else []
        self._credentials = Watched(tls_files(backend), lambda: credentials_of(backend))
        self._token = Watched(token, lambda: token_of(backend))
        self.has_any = bool(self._credentials.files or self._token.files)

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """What channels are opened by; None: plaintext."""
        return self._credentials.value

    @property
    def token_metadata(self) -> TokenMetadata:
        """The metadata that shows the router's token."""
        return self._token.value

    def reread_files(self) -> tuple[bool, bool]:
        """Read files again that changed; return whether credentials and token are new ones."""
        return self._credentials.refresh(), self._token.refresh()

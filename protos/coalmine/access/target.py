"""How a caller reaches a server: the channel, and the token that each call shows."""

import functools
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import grpc

from coalmine.access.credentials import channel_credentials
from coalmine.access.tls_files import AUTHORIZATION, Tls
from coalmine.errors import StartError, reason_of
from coalmine.process.addresses import check_target

# The environment variables of the program's verbs.
SERVER_VARIABLE: Final = "COALMINE_SERVER"
CA_VARIABLE: Final = "COALMINE_CA"
TOKEN_VARIABLE: Final = "COALMINE_TOKEN"  # noqa: S105 - a name

Options = Sequence[tuple[str, Any]]
Shown = tuple[tuple[str, str], ...]


def open_channel(target: str, tls: Tls | None, options: Options = ()) -> grpc.Channel:
    """Return a channel that waits: TLS where there is `tls`, else plaintext. Raises StartError."""
    check_target(target)
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, channel_credentials(tls), options=_named(tls, options))


def open_aio_channel(
    target: str,
    tls: Tls | None,
    options: Options = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Return a channel for the loop, as `open_channel` does.

    `credentials`, where there are any, are those that the files of `tls` were read as.
    """
    check_target(target)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    credentials = credentials or channel_credentials(tls)
    return grpc.aio.secure_channel(target, credentials, options=_named(tls, options))


# ---------------------------------------------------------------- tokens


def shown(token: str | None, target: str, tls: Tls | None, *, in_plaintext: bool) -> Shown:
    """Return the metadata that shows `token`; none without one.

    A token leaves this machine by TLS, or `in_plaintext` because the caller knows that something
    else encrypts, such as a mesh. Raises StartError.
    """
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise StartError("a token is one word of ASCII")
    if tls is None and not in_plaintext and not is_here(target):
        raise StartError(f"a token would go to {target} unencrypted: give the authority (ca) too")
    return ((AUTHORIZATION, f"Bearer {token}"),)


def shown_from(file: Path, target: str, tls: Tls | None, *, in_plaintext: bool) -> Shown:
    """Return the metadata that shows the token in `file`, as `shown` does. Raises StartError."""
    try:
        token = file.read_text().strip()
    except OSError as error:
        raise StartError(f"{file}: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise StartError(f"{file}: not a text file") from None
    try:
        return shown(token, target, tls, in_plaintext=in_plaintext)
    except StartError as error:
        raise StartError(f"{file}: {error}") from None


def showing(channel: grpc.aio.Channel, metadata: Shown) -> grpc.aio.Channel:
    """Return the channel for stubs whose every call shows `metadata`."""
    return cast("grpc.aio.Channel", _Showing(channel, metadata)) if metadata else channel


class _Showing:
    """What a stub asks of a channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Shown) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, kind: str) -> Any:
        """Return the channel's unary_unary and so on, with the metadata in each call."""
        multi_callable: Callable[..., Any] = getattr(self._channel, kind)
        return lambda *said, **more: functools.partial(
            multi_callable(*said, **more), metadata=self._metadata
        )


# ---------------------------------------------------------------- where a target is


def is_here(target: str) -> bool:
    """Return whether what is sent to `target` stays on this machine."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"dns", "ipv4", "ipv6"}:
        target = rest.rpartition("/")[2]
    return all(_is_loopback(_host(each)) for each in target.split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] or address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _named(tls: Tls, options: Options) -> Options:
    if tls.server_name is None:
        return options
    return (*options, ("grpc.ssl_target_name_override", tls.server_name))


# ---------------------------------------------------------------- being turned away

_BY_CODE: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "give a token that is known there, by COALMINE_TOKEN",
    grpc.StatusCode.PERMISSION_DENIED: "give a token of that role, by COALMINE_TOKEN",
}
# What gRPC says of a connection that came to nothing, and what it means.
_BY_WORDS: Final = {
    "WRONG_VERSION_NUMBER": "TLS is not spoken there: leave out --ca, --cert and --key",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is of an authority that --ca doesn't trust",
    "Hostname Verification": "its certificate is for another name: give --server-name",
    "Socket closed": "it may ask for TLS (--ca), or for a certificate (--cert, --key)",
}


def turned_away(error: grpc.aio.AioRpcError) -> str:
    """Return what to do about a call that was not let in; "" where it failed by something else."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return _BY_CODE.get(error.code(), "")
    details = error.details() or ""
    found = (what for words, what in _BY_WORDS.items() if words in details)
    return next(found, "") if "failed to connect" in details else ""

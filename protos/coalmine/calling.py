"""How a caller reaches a server: the channel, and the token that each call shows."""

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

import grpc

from coalmine.credentials import channel_credentials
from coalmine.errors import StartError
from coalmine.security import Tls
from coalmine.tokens import AUTHORIZATION

# The environment variables of the program's verbs.
SERVER_VARIABLE: Final = "COALMINE_SERVER"
CA_VARIABLE: Final = "COALMINE_CA"
TOKEN_VARIABLE: Final = "COALMINE_TOKEN"  # noqa: S105 - a name

Options = Sequence[tuple[str, Any]]


def open_channel(target: str, tls: Tls | None, options: Options = ()) -> grpc.Channel:
    """Return a channel that waits: TLS where there is `tls`, else plaintext. Raises StartError."""
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, channel_credentials(tls), options=_named(tls, options))


def open_aio_channel(target: str, tls: Tls | None, options: Options = ()) -> grpc.aio.Channel:
    """Return a channel for the loop, as `open_channel` does."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, channel_credentials(tls), options=_named(tls, options))


def shown(token: str | None, target: str, *, anywhere: bool) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows `token`; none without one.

    A token leaves this machine where it may go `anywhere`: by TLS, or because the caller knows that
    something else encrypts, such as a mesh. Raises StartError.
    """
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise StartError("a token is one word of ASCII")
    if not anywhere and not is_here(target):
        raise StartError(f"a token would go to {target} unencrypted: give the authority (ca) too")
    return ((AUTHORIZATION, f"Bearer {token}"),)


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

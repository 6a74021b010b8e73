"""How a caller reaches a server: by a channel, and with the token that each call shows."""

import functools
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
TokenMetadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a caller connects to, and how it is let in there.

    Without `tls` the connection is in plaintext. `token_file` overrules `token`. A token leaves
    this machine only over TLS. With `token_in_plaintext` the caller says that something else
    encrypts, such as a mesh.
    """

    address: str
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    token_in_plaintext: bool = False
    token_file: Path | None = None

    def open_channel(self, options: Options = ()) -> grpc.Channel:
        """Return a channel whose calls block. Raises StartError."""
        check_target(self.address)
        if self.tls is None:
            return grpc.insecure_channel(self.address, options=options)
        credentials = channel_credentials(self.tls)
        return grpc.secure_channel(
            self.address, credentials, options=_with_server_name(self.tls, options)
        )

    def open_aio_channel(
        self, options: Options = (), *, credentials: grpc.ChannelCredentials | None = None
    ) -> grpc.aio.Channel:
        """Return a channel for the loop. Raises StartError.

        `credentials`, where there are any, are those that the files of `tls` were read as.
        """
        check_target(self.address)
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = credentials or channel_credentials(self.tls)
        return grpc.aio.secure_channel(
            self.address, credentials, options=_with_server_name(self.tls, options)
        )

    def token_metadata(self) -> TokenMetadata:
        """Return the metadata that shows the token; none without one. Raises StartError."""
        if self.token_file is None:
            return self._bearer_metadata(self.token)
        try:
            return self._bearer_metadata(self.token_file.read_text().strip())
        except OSError as error:
            raise StartError(f"{self.token_file}: {reason_of(error)}") from None
        except UnicodeDecodeError:
            raise StartError(f"{self.token_file}: not a text file") from None
        except StartError as error:
            raise StartError(f"{self.token_file}: {error}") from None

    def _bearer_metadata(self, token: str | None) -> TokenMetadata:
        if token is None:
            return ()
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise StartError("a token is one word of ASCII")
        if self.tls is None and not self.token_in_plaintext and not is_local_target(self.address):
            raise StartError(
                f"a token would go to {self.address} unencrypted: give the authority (ca) too"
            )
        return ((AUTHORIZATION, f"Bearer {token}"),)


def _with_server_name(tls: Tls, options: Options) -> Options:
    if tls.server_name is None:
        return options
    return (*options, ("grpc.ssl_target_name_override", tls.server_name))


def with_metadata(channel: grpc.aio.Channel, metadata: TokenMetadata) -> grpc.aio.Channel:
    """Return the channel for stubs whose every call shows `metadata`."""
    return cast("grpc.aio.Channel", _MetadataChannel(channel, metadata)) if metadata else channel


class _MetadataChannel:
    """The part of a channel that a stub uses."""

    def __init__(self, channel: grpc.aio.Channel, metadata: TokenMetadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, kind: str) -> Any:
        """Return the channel's unary_unary and so on, with the metadata in each call."""
        multi_callable: Callable[..., Any] = getattr(self._channel, kind)
        return lambda *said, **more: functools.partial(
            multi_callable(*said, **more), metadata=self._metadata
        )


# ---------------------------------------------------------------- where a target is


def is_local_target(target: str) -> bool:
    """Return whether what is sent to `target` stays on this machine."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"dns", "ipv4", "ipv6"}:
        target = rest.rpartition("/")[2]
    return all(_is_loopback(_host_of(each)) for each in target.split(","))


def _host_of(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] or address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---------------------------------------------------------------- calls that were not let in

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


def advice_on(error: grpc.aio.AioRpcError) -> str:
    """Return advice on a call that was refused; "" if it failed for another reason."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return _BY_CODE.get(error.code(), "")
    details = error.details() or ""
    found = (what for words, what in _BY_WORDS.items() if words in details)
    return next(found, "") if "failed to connect" in details else ""

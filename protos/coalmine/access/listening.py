"""Listening with or without TLS, and a warning where plaintext is unwise."""

from typing import Final

import grpc
import structlog

from coalmine.access.credentials import server_credentials
from coalmine.access.target import is_local_target
from coalmine.access.tls_files import TlsFiles
from coalmine.process import lifecycle

_log = structlog.get_logger(__name__)

OPTIONS_REMEDY: Final = "give --tls-cert and --tls-key"


async def listen(
    server: grpc.aio.Server,
    address: str,
    tls: TlsFiles | None,
    *,
    tokens: bool,
    remedy: str,
    shared: bool = False,
) -> str:
    """Bind `server` to `address` and return the address with its real port.

    With `tls`, its files are read again when they change. `tokens` says whether callers must show
    a token, and `remedy` how TLS is switched on. `shared`: other processes of ours listen there
    too. Raises StartError.
    """
    credentials = None if tls is None else server_credentials(tls)
    listening = await lifecycle.listen(server, address, credentials, shared=shared)
    advice = plaintext_advice(address, tls=tls is not None, tokens=tokens, remedy=remedy)
    if advice:
        _log.warning("insecure_listen", address=listening, advice=advice)
    return listening


def plaintext_advice(address: str, *, tls: bool, tokens: bool, remedy: str) -> str:
    """Return advice if the network can read what callers send; "" if it can't."""
    if tls or is_local_target(address):
        return ""
    what = "calls and their tokens" if tokens else "anybody may call, and calls"
    return f"{what} cross the network unencrypted: {remedy}"

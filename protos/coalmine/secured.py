"""The options of every verb that calls, or listens: whom it trusts, what it shows, and asks for."""

from pathlib import Path
from typing import Annotated

import typer

from coalmine.calling import CA_VARIABLE, TOKEN_VARIABLE

Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar=CA_VARIABLE,
        metavar="FILE",
        help="Connect by TLS, and trust this authority; PEM.",
    ),
]
Cert = Annotated[
    Path | None,
    typer.Option("--cert", metavar="FILE", help="A certificate to show, PEM; with --key."),
]
Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key, PEM.")
]
ServerName = Annotated[
    str | None,
    typer.Option(
        "--server-name",
        metavar="NAME",
        help="The name in the server's certificate, where it isn't the address.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar=TOKEN_VARIABLE, help="Shown with every call. Better by variable."
    ),
]
TokenInPlaintext = Annotated[
    bool,
    typer.Option(
        "--token-in-plaintext", help="Send the token without TLS: something else encrypts."
    ),
]

# ---------------------------------------------------------------- who listens

TlsCert = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The server's certificates, PEM; with --tls-key."),
]
TlsKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The certificate's private key, PEM.")
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Callers must show a certificate of this authority, PEM."),
]
Tokens = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file of who may call, with what role; see docs."),
]

"""The options of every verb that calls or listens: TLS files and tokens."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from coalmine.access.target import CA_VARIABLE, TOKEN_VARIABLE, Target
from coalmine.access.tls_files import Tls, TlsFiles

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

Made = TypeVar("Made")
Verb = Callable[..., Made]


def in_place_of(parameter: str, maker: Callable[..., object]) -> Callable[[Verb[Made]], Verb[Made]]:
    """Return a decorator: a verb has the options of `maker` in the place of its `parameter`.

    So the options of a connection are written once for all verbs that make one.
    """
    options = inspect.signature(maker).parameters

    def decorate(verb: Verb[Made]) -> Verb[Made]:
        @functools.wraps(verb)
        def call_with_options(**given: Any) -> Made:
            taken = {name: given.pop(name) for name in options}
            return verb(**{parameter: maker(**taken)}, **given)

        signature = inspect.signature(verb)
        parameters = [
            each.replace(kind=Parameter.KEYWORD_ONLY)
            for name, own in signature.parameters.items()
            for each in (options.values() if name == parameter else (own,))
        ]
        # typer reads the options from here.
        call_with_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        return call_with_options

    return decorate


def target_maker(
    *,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: Token = None,
    token_in_plaintext: TokenInPlaintext = False,
) -> "TargetMaker":
    """Return what makes a Target of an address, by the options of a connection."""
    tls = Tls.from_options(ca, cert, key, server_name)
    return lambda address: Target(address, tls, token, token_in_plaintext)


TargetMaker = Callable[[str], Target]
# A verb's parameter `target_at`, as options.
with_target_options: Final = in_place_of("target_at", target_maker)


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


def listener_tls(
    *, tls_cert: TlsCert = None, tls_key: TlsKey = None, tls_client_ca: TlsClientCa = None
) -> TlsFiles | None:
    """Return the files of a listener; None: plaintext. Raises StartError."""
    return TlsFiles.from_options(tls_cert, tls_key, tls_client_ca)


# A verb's parameter `tls`, as options.
with_tls_options: Final = in_place_of("tls", listener_tls)

Tokens = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file of who may call, with what role; see docs."),
]

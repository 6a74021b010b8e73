"""The options of every verb that calls, or listens: whom it trusts, what it shows, and asks for."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from coalmine.access.target import CA_VARIABLE, TOKEN_VARIABLE

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

Verb = Callable[..., None]


def in_place_of(parameter: str, made: Callable[..., object]) -> Callable[[Verb], Verb]:
    """Return a decorator: of a verb's `parameter`, its program has the options of `made` instead.

    So the options of a connection are said once for all verbs that make one.
    """
    options = inspect.signature(made).parameters

    def decorated(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def with_options(**given: Any) -> None:
            taken = {name: given.pop(name) for name in options}
            verb(**{parameter: made(**taken)}, **given)

        said = inspect.signature(verb)
        own = [each for name, each in said.parameters.items() if name != parameter]
        # typer reads the options from here.
        with_options.__signature__ = said.replace(  # type: ignore[attr-defined]
            parameters=[each.replace(kind=Parameter.KEYWORD_ONLY) for each in own]
            + [*options.values()]
        )
        return with_options

    return decorated


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

"""The operator's verbs at a server that runs: what it serves, and changes to that."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coalmine.access.target import SERVER_VARIABLE
from coalmine.access.tls_files import Tls
from coalmine.command_line.connection_options import (
    Ca,
    Cert,
    Key,
    ServerName,
    Token,
    TokenInPlaintext,
    in_place_of,
)
from coalmine.command_line.number_options import decimal_option
from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.process.lifecycle import EXIT_FAILED
from coalmine.process.standard_streams import say_to_people
from coalmine_server.cli.asking import AskFailed, Server, one_line
from coalmine_server.cli.starting import fail

_HERE: Final = "127.0.0.1:8001"
_READ_S: Final = 10.0
_CHANGE_S: Final = 600.0  # a model may be large, and what is in flight is waited for
_PIPE_WIDTH: Final = 4_000  # wider than any row: nothing is cut where a program reads
_STYLES: Final = {"READY": "green", "UNAVAILABLE": "red"}

_Model = Annotated[str, typer.Argument(metavar="MODEL")]
_Address = Annotated[
    str,
    typer.Option(
        "--server", envvar=SERVER_VARIABLE, metavar="HOST:PORT", help="Where the server listens."
    ),
]
# What the option was called before.
_Before = Annotated[str | None, typer.Option("--address", metavar="HOST:PORT", hidden=True)]
_Timeout = Annotated[float, decimal_option(metavar="SECONDS", min=0.001, help="For the answer.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, in a form that stays.")]


def _server(
    *,
    address: _Address = _HERE,
    address_before: _Before = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: Token = None,
    token_in_plaintext: TokenInPlaintext = False,
) -> Server:
    return Server(
        address_before or address, Tls.given(ca, cert, key, server_name), token, token_in_plaintext
    )


_calling: Final = in_place_of("server", _server)


@_calling
def models(
    server: Server,
    timeout: _Timeout = _READ_S,
    as_json: _Json = False,
) -> None:
    """List the versions of each model at a server: their states, and why.

    Example: coalmine server models --server 127.0.0.1:8001
    """
    rows = _answer(server, "RepositoryIndex", pb.RepositoryIndexRequest(), timeout).models
    if as_json:
        print(json.dumps([_row(each) for each in rows], indent=2))  # noqa: T201 - the answer
    else:
        _print(rows)


@_calling
def load(
    model: _Model,
    server: Server,
    timeout: _Timeout = _CHANGE_S,
) -> None:
    """Have a server load a model, or what has changed of it; return once it serves.

    Example: coalmine server load digits
    """
    with _waiting(f"loading {model} …"):
        _answer(
            server, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model), timeout
        )
    _done(f"{model} is loaded")


@_calling
def unload(
    model: _Model,
    server: Server,
    timeout: _Timeout = _CHANGE_S,
) -> None:
    """Have a server unload a model; return once what it had begun is answered.

    Example: coalmine server unload digits
    """
    with _waiting(f"unloading {model} …"):
        _answer(
            server,
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(model_name=model),
            timeout,
        )
    _done(f"{model} is unloaded")


# ---------------------------------------------------------------- what the verbs share


def _answer(server: Server, method: str, request: Message, timeout_s: float) -> Any:
    """Return the answer, or say why there is none and exit."""
    try:
        return server.ask(method, request, timeout_s)
    except AskFailed as error:
        say_to_people(str(error))
        raise typer.Exit(EXIT_FAILED) from None
    except StartError as error:
        fail(str(error))


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Show that it goes on, where somebody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(Text(one_line(what))):
        yield


def _done(line: str) -> None:
    Console(soft_wrap=True).print(Text(one_line(line)))


def _row(each: pb.RepositoryIndexResponse.ModelIndex) -> dict[str, str]:
    return {
        "model": each.name,
        "version": each.version,
        "state": each.state,
        "reason": each.reason,
    }


def _print(rows: Sequence[pb.RepositoryIndexResponse.ModelIndex]) -> None:
    table = Table("model", "version", "state", "reason", box=None, pad_edge=False)
    for each in rows:
        state = Text(each.state, _STYLES.get(each.state, "yellow"))
        table.add_row(_cell(each.name), _cell(each.version), state, _cell(each.reason))
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        print(line.rstrip())  # noqa: T201 - the answer


def _cell(text: str) -> Text:
    """Return what a server says, as nothing but text."""
    return Text(one_line(text))

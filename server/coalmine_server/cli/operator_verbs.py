"""The operator's verbs at a server that runs: what it serves, and changes to that."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coalmine.access.target import SERVER_VARIABLE, Target
from coalmine.command_line.connection_options import TargetMaker, in_place_of, with_target_options
from coalmine.command_line.number_options import decimal_option
from coalmine.inference import inference_pb2 as pb
from coalmine_server.cli.server_call import call_server, printable_line

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


@with_target_options
def _server_target(
    *, address: _Address = _HERE, address_before: _Before = None, target_at: TargetMaker
) -> Target:
    return target_at(address_before or address)


_with_server: Final = in_place_of("server", _server_target)


@_with_server
def models(
    timeout: _Timeout = _READ_S,
    as_json: _Json = False,
    *,
    server: Target,
) -> None:
    """List the versions of each model at a server: their states, and why.

    Example: coalmine server models --server 127.0.0.1:8001
    """
    rows = call_server(server, "RepositoryIndex", pb.RepositoryIndexRequest(), timeout).models
    if as_json:
        print(json.dumps([_json_row(each) for each in rows], indent=2))  # noqa: T201 - the answer
    else:
        _print_table(rows)


@_with_server
def load(
    model: _Model,
    timeout: _Timeout = _CHANGE_S,
    *,
    server: Target,
) -> None:
    """Have a server load a model, or what has changed of it; return once it serves.

    Example: coalmine server load digits
    """
    with _show_waiting(f"loading {model} …"):
        call_server(
            server, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model), timeout
        )
    _print_done(f"{model} is loaded")


@_with_server
def unload(
    model: _Model,
    timeout: _Timeout = _CHANGE_S,
    *,
    server: Target,
) -> None:
    """Have a server unload a model; return once what it had begun is answered.

    Example: coalmine server unload digits
    """
    with _show_waiting(f"unloading {model} …"):
        call_server(
            server,
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(model_name=model),
            timeout,
        )
    _print_done(f"{model} is unloaded")


# ---------------------------------------------------------------- what the verbs share


@contextlib.contextmanager
def _show_waiting(what: str) -> Iterator[None]:
    """Show on a terminal that the verb goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(Text(printable_line(what))):
        yield


def _print_done(line: str) -> None:
    Console(soft_wrap=True).print(Text(printable_line(line)))


def _json_row(each: pb.RepositoryIndexResponse.ModelIndex) -> dict[str, str]:
    return {
        "model": each.name,
        "version": each.version,
        "state": each.state,
        "reason": each.reason,
    }


def _print_table(rows: Sequence[pb.RepositoryIndexResponse.ModelIndex]) -> None:
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
    """Return text from a server as plain text."""
    return Text(printable_line(text))

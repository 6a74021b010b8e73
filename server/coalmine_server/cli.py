"""The verbs `coalmine server …` and `coalmine package`. Imports no torch until it is needed."""

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from coalmine import telemetry
from coalmine.config_file import duration_ns
from coalmine.errors import StartError
from coalmine.lifecycle import EXIT_CANNOT_START
from coalmine_server import packager
from coalmine_server.check import Finding, findings_in
from coalmine_server.config import ServerConfig
from coalmine_server.repository import Repository

server = typer.Typer(
    name="server", help="Serve TorchScript models over gRPC.", no_args_is_help=True
)

_NO_TORCH: Final = "torch is not installed; pip install 'coalmine[server]'"

_Repository = Annotated[
    Path, typer.Option("--model-repository", help="Folder of NAME/VERSION/model.pt.")
]
_Listen = Annotated[str, typer.Option(help="Address of the gRPC side.")]
_Http = Annotated[str, typer.Option(help="Address of /metrics, /healthz and /readyz.")]
_Grace = Annotated[str, typer.Option(help="How long requests in flight may take at the end.")]
_Traces = Annotated[
    Path | None, typer.Option(help="Folder for traces as OTLP JSON, where no OTLP endpoint is set.")
]


@server.callback()
def _group() -> None:
    """Serve TorchScript models over gRPC."""


@server.command()
def run(
    model_repository: _Repository,
    listen: _Listen = "127.0.0.1:8001",
    http: _Http = "127.0.0.1:8002",
    grace: _Grace = "30s",
    traces: _Traces = None,
) -> None:
    """Serve the models of a repository until SIGTERM or Ctrl-C."""
    _prepare()
    # Threads of a forward that wait for each other by spinning starve the loop beside them: twice
    # the CPU for a request to a small model. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from coalmine_server import app  # noqa: PLC0415 - brings torch

    config = ServerConfig(
        repository=model_repository,
        listen=listen,
        http=http,
        grace_s=_seconds("--grace", grace),
        traces=traces,
    )
    raise typer.Exit(app.run(config))


@server.command()
def check(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="A model repository.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Validate a repository without serving it: config, hashes, loading and warm-up."""
    _prepare()
    from coalmine_server.runtime.torchscript import TorchScript  # noqa: PLC0415 - is torch

    try:
        findings = list(findings_in(Repository(repository), TorchScript()))
    except StartError as error:
        _fail(str(error))
    _print_findings(findings, as_json=as_json)
    bad = [each for each in findings if not each.is_good]
    if bad:
        _fail(bad[0].problem + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))


def package(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A TorchScript file.")],
    repository: Annotated[Path, typer.Option(help="The model repository to put it in.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    version: Annotated[int, typer.Option(help="A positive integer, not there so far.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME:DATATYPE:[SIZES], without the batch dimension."),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", help="As --input; in the module's order.")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Most rows of a batch; 0: no batch dimension.")
    ] = None,
    max_delay: Annotated[
        str | None, typer.Option(help="How long a request may wait for others, such as 2ms.")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="How many copies run at the same time.")
    ] = None,
    latest: Annotated[
        int | None, typer.Option(min=1, help="How many of the newest versions are served. [2]")
    ] = None,
) -> None:
    """Put a TorchScript file into a repository, tried out, with its config and sha256."""
    _prepare()
    from coalmine_server.runtime.torchscript import TorchScript  # noqa: PLC0415 - is torch

    declared = packager.Declared(
        inputs or [], outputs or [], max_batch_size, max_delay, instances, latest
    )
    try:
        done = packager.package(
            source,
            repository=repository,
            name=name,
            version=version,
            declared=declared,
            runtime=TorchScript(),
        )
    except StartError as error:
        _fail(str(error))
    Console(soft_wrap=True).print(f"{done.path} sha256 {done.sha256}", markup=False)


# ---------------------------------------------------------------- what the verbs share


def _prepare() -> None:
    """Log to standard error, and fail where torch is missing."""
    try:
        telemetry.configure_logging(telemetry.SERVER_SERVICE)
    except StartError as error:
        _fail(str(error))
    if importlib.util.find_spec("torch") is None:
        _fail(_NO_TORCH)


def _fail(line: str) -> NoReturn:
    print(f"coalmine: {line}", file=sys.stderr)  # noqa: T201 - the one line that is owed
    raise typer.Exit(EXIT_CANNOT_START)


def _seconds(option: str, text: str) -> float:
    try:
        return duration_ns(text) / 1e9
    except ValueError as error:
        _fail(f"{option}: {error}")


def _print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([each.row() for each in findings], indent=2))  # noqa: T201 - the answer
        return
    table = Table("model", "version", "inputs", "outputs", "sha256", "result")
    for each in findings:
        result = "[green]ready[/green]" if each.is_good else "[red]refused[/red]"
        shapes = (each.inputs.replace("[", r"\["), each.outputs.replace("[", r"\["))
        table.add_row(each.model, str(each.version), *shapes, each.sha256, result)
    Console().print(table)

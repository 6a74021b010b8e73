"""The verbs that need no server: `coalmine package`, and `coalmine server check`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coalmine.command_line.number_options import whole_option
from coalmine.process.exit_codes import EXIT_CANNOT_START
from coalmine.process.output_capture import capturing_output
from coalmine.process.standard_streams import print_error_line, uncaptured_stream
from coalmine_server import provenance
from coalmine_server.cli.server_call import printable_text
from coalmine_server.cli.starting import end_on_interrupt, start_logging_and_check_torch
from coalmine_server.packaging.declaration import Declaration
from coalmine_server.packaging.packager import PackagedVersion, PackageOrder, Packager
from coalmine_server.packaging.repository_check import VersionCheck, check_repository
from coalmine_server.repository import Repository

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Source = Annotated[Path, typer.Argument(metavar="SRC", help="A TorchScript file.")]
_Place = Annotated[Path, typer.Option(help="The model repository to put it in.")]
_Name = Annotated[str, typer.Option(help="The model's name.")]
_Version = Annotated[int, whole_option(help="A positive integer, not there so far.")]
_Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME:DATATYPE:[SIZES], without the batch dimension."),
]
_Outputs = Annotated[
    list[str] | None, typer.Option("--output", help="As --input; in the module's order.")
]
_Rows = Annotated[int | None, whole_option(help="Most rows of a batch; 0: no batch dimension.")]
_Delay = Annotated[
    str | None, typer.Option(help="How long a request may wait for others, such as 2ms.")
]
_Instances = Annotated[int | None, whole_option(help="How many copies run at the same time.")]
_Latest = Annotated[
    int | None,
    whole_option(
        min=1, help="How many of the newest versions are served; also of a known model. [2]"
    ),
]
_Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="A name for the version, such as stable; moved if it is taken."),
]
_Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", help="KEY=VALUE, shown to clients in the model's metadata."),
]
_Tree = Annotated[
    Path | None,
    typer.Option("--source", help="The folder it was made from; its digest and commit are kept."),
]
_Mixing = Annotated[
    bool,
    typer.Option("--allow-row-mixing", help="Take a model whose rows change each other's answers."),
]


_Drop = Annotated[
    bool, typer.Option("--drop", help="Go on where other versions will be served no more.")
]


def package(
    source: _Source,
    repository: _Place,
    name: _Name,
    version: _Version,
    inputs: _Inputs = None,
    outputs: _Outputs = None,
    max_batch_size: _Rows = None,
    max_delay: _Delay = None,
    instances: _Instances = None,
    latest: _Latest = None,
    label: _Labels = None,
    metadata: _Metadata = None,
    source_tree: _Tree = None,
    allow_row_mixing: _Mixing = False,
    drop: _Drop = False,
    as_json: _Json = False,
) -> None:
    """Put a TorchScript file into a repository, tried out, with its config and sha256.

    Example: coalmine package digits.pt --repository models --name digits --version 1
    --input pixels:FP32:[64] --output logits:FP32:[10]
    """
    start_logging_and_check_torch()
    end_on_interrupt()
    order = PackageOrder(
        source=source,
        repository=repository,
        name=name,
        version=version,
        declared=Declaration(
            inputs or (), outputs or (), max_batch_size, max_delay, instances, latest
        ),
        labels=tuple(label or ()),
        metadata=provenance.metadata_of(metadata or ()),
        source_tree=source_tree,
        allow_row_mixing=allow_row_mixing,
        drop=drop,
    )
    done = _package_showing_progress(order)
    _print_packaged(order, done, as_json=as_json)


def _package_showing_progress(order: PackageOrder) -> PackagedVersion:
    with capturing_output():
        from coalmine_server.runtime.torchscript import TorchScript  # noqa: PLC0415 - is torch

        # Seen only on a terminal; the lines of a log would be no use.
        console = Console(file=uncaptured_stream(sys.stderr))
        with console.status(f"reading {order.source}") as shown:
            packager = Packager(TorchScript(), progress=lambda line: shown.update(Text(line)))
            return packager.package(order)


def _print_packaged(order: PackageOrder, done: PackagedVersion, *, as_json: bool) -> None:
    for each in done.warnings:
        print_error_line(f"warning: {order.name} version {order.version}: {each}")
    if as_json:
        labels = {"labels": list(order.labels)}
        told = {"model": order.name, "version": order.version, **labels, **asdict(done)}
        print(json.dumps({**told, "path": str(done.path)}, indent=2))  # noqa: T201 - the answer
        return
    Console(soft_wrap=True).print(f"{done.path} sha256 {done.sha256}", markup=False)


# ---------------------------------------------------------------- check


def check(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="A model repository.")],
    as_json: _Json = False,
) -> None:
    """Validate a repository without serving it: config, hashes, loading and warm-up.

    Example: coalmine server check models
    """
    start_logging_and_check_torch()
    end_on_interrupt()
    with capturing_output():
        checks = _check_all(repository)
    if as_json:
        print(json.dumps([each.json_row() for each in checks], indent=2))  # noqa: T201 - the answer
    else:
        _print_table(checks)
    _say_problems_and_exit(checks)


def _check_all(repository: Path) -> list[VersionCheck]:
    from coalmine_server.runtime.torchscript import TorchScript  # noqa: PLC0415 - is torch

    return check_repository(Repository(repository), TorchScript())


def _print_table(checks: Sequence[VersionCheck]) -> None:
    table = Table("model", "version", "labels", "inputs", "outputs", "sha256", "from", "result")
    for each in checks:
        cells = (each.inputs, each.outputs, each.sha256, each.origin)
        number = each.folder if each.version is None else str(each.version)
        first = (each.model, number, ", ".join(each.labels))
        table.add_row(*map(_cell, (*first, *cells)), _result_cell(each))
    Console().print(table)


def _result_cell(found: VersionCheck) -> Text:
    if found.unserved:
        return Text("not served", "yellow")
    return Text("ready", "green") if found.is_servable else Text("refused", "red")


def _cell(text: str) -> Text:
    """Return text from a file as plain text."""
    return Text(printable_text(text))


def _say_problems_and_exit(checks: Sequence[VersionCheck]) -> None:
    """Say each warning and each problem; a problem is a failure."""
    for each in checks:
        for warning in each.warnings:
            print_error_line(f"warning: {each.label}: {warning}")
        if each.unserved:
            print_error_line(f"warning: {each.label}: not served: {each.unserved}")
    problems = [each.problem for each in checks if not each.is_servable]
    for problem in problems:
        print_error_line(problem)
    if problems:
        raise typer.Exit(EXIT_CANNOT_START)

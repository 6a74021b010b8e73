"""`coalmine traces`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from coalmine.number_options import whole_option
from coalmine_client.cli import traces_json
from coalmine_client.cli.console import AsJson, line, show, show_json
from coalmine_client.cli.failure import Failure, WrongUsage
from coalmine_client.cli.traces_choice import collected, is_any, is_mismatch, newest
from coalmine_client.cli.traces_files import TraceFiles
from coalmine_client.cli.traces_view import traces_view


def traces(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Trace files, or folders of traces-*.jsonl."),
    ],
    *,
    trace: Annotated[str, typer.Option(metavar="ID", help="Only this one.")] = "",
    mismatches: Annotated[
        bool, typer.Option("--mismatches", help="Only those in which a candidate differs.")
    ] = False,
    limit: Annotated[
        int, whole_option(min=1, max=10_000, metavar="N", help="How many, the newest.")
    ] = 20,
    json: AsJson = False,
) -> None:
    """Print the traces that router and server left in files, as trees; the newest first.

    Spans of one trace may lie in several files: give those of router and server together.

    Example: coalmine traces state/traces --mismatches
    """
    read = TraceFiles(files)
    ids = (
        [_id(trace)]
        if trace
        else newest(read.spans(), limit, is_mismatch if mismatches else is_any)
    )
    found = collected(read.spans(), ids)
    for file in sorted(read.unfinished):
        typer.echo(f"coalmine: traces: {file}: its last line isn't whole; left out", err=True)
    if trace and not found:
        raise Failure(f"no trace {trace} in {', '.join(map(str, files))}")
    if json:
        show_json(traces_json.traces(found))
    else:
        show(traces_view(found) if found else line("no such traces" if mismatches else "no traces"))


def _id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text):
        raise WrongUsage(f"--trace: expected 32 hexadecimal digits, got '{text}'")
    return text.lower()

"""`coalmine traces`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.command_line.number_options import whole_option
from coalmine.process.standard_streams import print_error_line
from coalmine_client.cli.atomic_file import is_stream, write_private
from coalmine_client.cli.console import STRONG, AsJson, line, show, show_json
from coalmine_client.cli.traces import traces_json
from coalmine_client.cli.traces.traces_choice import is_any, is_mismatch, newest_ids, spans_by_trace
from coalmine_client.cli.traces.traces_files import TraceFiles
from coalmine_client.cli.traces.traces_view import traces_view
from coalmine_client.otlp_spans import Span, line_of


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
    otlp: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write them whole as OTLP JSON, for Jaeger's Upload."),
    ] = None,
) -> None:
    """Print the traces that router and server left in files, as trees; the newest first.

    Spans of one trace may lie in several files: give those of router and server together. Jaeger's
    Upload doesn't join them: --otlp FILE does.

    Example: coalmine traces state/traces --mismatches
    """
    if json and otlp:
        raise WrongUsage("--json and --otlp: expected one of them")
    read = TraceFiles(files)
    ids = (
        [_parse_trace_id(trace)]
        if trace
        else newest_ids(read.spans(), limit, is_mismatch if mismatches else is_any)
    )
    found = spans_by_trace(read.spans(), ids)
    for file in sorted(read.unfinished):
        print_error_line(f"traces: {file}: its last line isn't whole; left out")
    if trace and not found:
        raise Failure(f"no trace {trace} in {', '.join(map(str, files))}")
    if otlp:
        _write_traces(otlp, found)
    elif json:
        show_json(traces_json.traces_json(found))
    else:
        show(traces_view(found) if found else line("no such traces" if mismatches else "no traces"))


def _write_traces(file: Path, found: Mapping[str, Sequence[Span]]) -> None:
    """Write a trace a line; a link stays, and into a pipe go the traces alone."""
    content = "".join(f"{line_of(spans)}\n" for spans in found.values()).encode()
    write_private(file.resolve() if file.is_file() else file, content)
    if is_stream(file):
        return
    spans = sum(map(len, found.values()))
    traces = "1 trace" if len(found) == 1 else f"{len(found):,} traces"
    show(line(f"{traces} with {spans:,} spans in ", (str(file), STRONG)))


def _parse_trace_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text):
        raise WrongUsage(f"--trace: expected 32 hexadecimal digits, got '{text}'")
    return text.lower()

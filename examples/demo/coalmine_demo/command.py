"""`coalmine demo`."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from coalmine.command_line.number_options import whole_option
from coalmine.errors import StartError
from coalmine.process.exit_codes import EXIT_FAILED, EXIT_OK
from coalmine.process.private_folder import make_temporary_folder
from coalmine.spans.span_settings import FILES, OTLP, exporters_of
from coalmine_demo import demo_report, evidence, models
from coalmine_demo.claims import BROKEN, all_checks
from coalmine_demo.demo_failure import StepFailed, step_failures
from coalmine_demo.demo_processes import DemoProcesses, run_unless_interrupted
from coalmine_demo.demo_traces import pick
from coalmine_demo.place import LOOPBACK, Place
from coalmine_demo.story import Ending, Story

_PICKED_EACH: Final = 10
_EXPORT: Final = ("OTEL_EXPORTER_OTLP_", "OTEL_RESOURCE_ATTRIBUTES")


def demo(
    *,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Work in this folder, not in a temporary one."),
    ] = None,
    seed: Annotated[
        int, whole_option("--seed", min=0, help="Of the training and of what is held out.")
    ] = 1,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Listen there, and nowhere else, such as ::1.")
    ] = LOOPBACK,
    jaeger_url: Annotated[
        str,
        typer.Option(
            envvar="COALMINE_JAEGER", metavar="URL", help="Where Jaeger shows what is exported."
        ),
    ] = "http://localhost:16686",
) -> None:
    """Run the whole thing on this machine: models trained on real handwriting, real traffic.

    Traces go to files, and where OTEL_EXPORTER_OTLP_ENDPOINT is set to that collector too.

    Example: coalmine demo --keep demo
    """
    if not models.is_installed():
        raise StartError(models.REMEDY)
    place = Place(make_work_folder(keep), host)
    raise typer.Exit(run_unless_interrupted(_play(place, seed, page_url(os.environ, jaeger_url))))


def page_url(environ: Mapping[str, str], jaeger_url: str) -> str:
    """Return the address that Jaeger's page of a trace begins with; "" where none is exported."""
    return f"{jaeger_url.rstrip('/')}/trace/" if is_exporting(environ) else ""


def is_exporting(environ: Mapping[str, str]) -> bool:
    """Return whether spans go to a collector, too."""
    return OTLP in exporters_of(environ)


def make_work_folder(keep: Path | None) -> Path:
    """Return a new temporary folder, or `keep`, which is made if need be. Raises StartError."""
    if keep is None:
        return make_temporary_folder("coalmine-demo-")
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise StartError(f"--keep {keep}: it exists and is not an empty folder")
    keep.mkdir(parents=True, exist_ok=True)
    return keep.resolve()


async def _play(place: Place, seed: int, pages: str) -> int:
    shown = demo_report.demo_console()
    shown.print(f"Everything stays in {place.folder}", soft_wrap=True)
    failures: list[str] = []
    try:
        async with DemoProcesses(place.logs, demo_environ(os.environ)) as processes:
            ending = await Story(place, processes, demo_report.Steps(shown)).play(seed)
    except* StepFailed as group:
        failures = [str(error) for error in step_failures(group)]
    if failures:
        demo_report.show_failures(shown, failures)
        return EXIT_FAILED
    return conclude(shown, place, ending, pages)


def demo_environ(of: Mapping[str, str]) -> dict[str, str]:
    """Return `of` without variables that would change where the program calls or exports.

    Spans that go to a collector go to files as well: the demo reads them.
    """
    kept = {key: value for key, value in of.items() if not key.startswith(("OTEL_", "COALMINE_"))}
    if is_exporting(of):
        kept |= {key: value for key, value in of.items() if key.startswith(_EXPORT)}
        kept["OTEL_TRACES_EXPORTER"] = f"{OTLP},{FILES}"
    return kept


def conclude(shown: Console, place: Place, ending: Ending, pages: str = "") -> int:
    """Show tables, claims and where the traces are; return 0 if every claim came true, else 1."""
    made = all_checks(ending.outcome)
    picked = pick(ending.traces, _PICKED_EACH)
    place.picked_traces.write_text("".join(f"{line}\n" for line in ending.traces.lines_of(picked)))
    shown.print()
    shown.print(demo_report.traffic_table(ending.outcome))
    rows = evidence.output_rows(ending.learnt.trials)
    shown.print(demo_report.comparison_table(rows, ending.outcome))
    shown.print(demo_report.verdict_table(ending.outcome.judged))
    demo_report.show_checks(shown, made)
    example = _example_trace(ending, picked)
    demo_report.show_traces(shown, place, example, pages)
    demo_report.show_next(shown, place, example, ending.learnt.example)
    return EXIT_OK if all(check.is_true for check in made) else EXIT_FAILED


def _example_trace(ending: Ending, picked: Collection[str]) -> str:
    """Return a picked trace in which the broken canary differs."""
    caught = ending.traces.mismatches().get(BROKEN, [])
    return next((trace_id for trace_id in caught if trace_id in picked), "none")

"""What the demo shows: steps as they happen, tables, and the claims."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coalmine_demo.account import (
    ALL_BP,
    OK,
    JudgedShare,
    OutputRow,
    TrafficExchange,
    accuracy,
    percentile,
)
from coalmine_demo.claims import Check, DemoOutcome, Stage
from coalmine_demo.place import LOOPBACK, Place

JAEGER: Final = "jaegertracing/jaeger:2.20.0"
_PIPE_COLUMNS: Final = 120
_STYLES: Final = {"pass": "green", "fail": "red"}


def demo_console() -> Console:
    """Return a console for standard output, wide enough where nobody tells a width."""
    shown = Console(highlight=False)
    if not shown.is_terminal:
        shown = Console(highlight=False, width=_PIPE_COLUMNS)
    return shown


class Steps:
    """Says what is going on: a spinner on a terminal, and a line for each thing done."""

    def __init__(self, shown: Console) -> None:
        self._console = shown

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Show `doing` while it lasts, then how long it took."""
        started = time.monotonic()
        with self._console.status(f"{escape(doing)} …"):
            yield
        took = time.monotonic() - started
        self._console.print(f"[green]•[/green] {escape(doing)} [dim]({took:.1f} s)[/dim]")

    def show_command(self, line: str, output: str) -> None:
        """Show a command as it was typed, and what it printed."""
        self._console.print(f"  [bold]$ {escape(line)}[/bold]", soft_wrap=True)
        for each in output.rstrip().splitlines():
            self._console.print(f"    [dim]{escape(each)}[/dim]", soft_wrap=True)


# ---------------------------------------------------------------- tables


def traffic_table(outcome: DemoOutcome) -> Table:
    """Return what each variant was asked, got and answered, stage by stage."""
    table = Table(title="Traffic", title_justify="left")
    table.add_column("weights")
    table.add_column("variant")
    for heading in ("asked", "got", "", "p50", "p99", "accuracy"):
        table.add_column(heading, justify="right")
    for stage in outcome.stages:
        _add_stage(table, stage, outcome)
    return table


def _add_stage(table: Table, stage: Stage, outcome: DemoOutcome) -> None:
    weights = ", ".join(f"{name} {_percent_text(bp)}" for name, bp in stage.weights_bp.items())
    for share in stage.shares:
        mine = [each for each in stage.exchanges if each.variant == share.variant]
        right = f"{accuracy(mine, outcome.heldout.labels):.1%}"
        exact = "[green]exact[/green]" if share.is_exact else "[red]not exact[/red]"
        table.add_row(
            weights,
            share.variant,
            f"{share.asked:,.1f}",
            f"{share.got:,}",
            exact,
            *_latency_texts(mine),
            right,
        )
        weights = ""
    table.add_section()


def _latency_texts(exchanges: Sequence[TrafficExchange]) -> tuple[str, str]:
    answered = [each.latency_ms for each in exchanges if each.status == OK]
    return f"{percentile(answered, 50):.1f} ms", f"{percentile(answered, 99):.1f} ms"


def _percent_text(weight_bp: int) -> str:
    return f"{weight_bp * 100 / ALL_BP:g}%"


def comparison_table(outputs: Sequence[OutputRow], outcome: DemoOutcome) -> Table:
    """Return how often each candidate differs, by output, and how well it reads digits."""
    table = Table(title="Comparisons", title_justify="left")
    for heading in ("candidate", "against", "output"):
        table.add_column(heading)
    for heading in ("compared", "mismatch", "rate", "accuracy"):
        table.add_column(heading, justify="right")
    for row in outputs:
        own = outcome.heldout.answers[row.candidate].label == outcome.heldout.labels
        rate = f"{row.mismatch / row.compared:.1%}" if row.compared else "-"
        table.add_row(
            row.candidate,
            row.reference,
            row.output,
            f"{row.compared:,}",
            f"{row.mismatch:,}",
            rate,
            f"{own.mean():.1%}",
        )
    return table


def verdict_table(judged: Sequence[JudgedShare]) -> Table:
    """Return the verdict on each candidate, the requests that it rests on, and why."""
    table = Table(title="Verdicts", title_justify="left")
    for heading in ("candidate", "against", "verdict"):
        table.add_column(heading)
    table.add_column("after", justify="right")
    table.add_column("why")
    for each in judged:
        word = f"[{_STYLES.get(each.verdict, 'yellow')}]{each.verdict.upper()}[/]"
        after = f"{each.requests:,}" if each.verdict == "fail" else ""
        table.add_row(each.candidate, each.reference, word, after, escape(each.reason))
    return table


# ---------------------------------------------------------------- the end


def show_checks(shown: Console, checks: Sequence[Check]) -> None:
    """Show every claim, whether it came true, and its figures."""
    shown.print("\n[bold]Claims[/bold]")
    for check in checks:
        mark = "[green]✓[/green]" if check.is_true else "[red]✗[/red]"
        shown.print(f"  {mark} {escape(check.claim)}: {escape(check.figures)}", soft_wrap=True)


def show_failures(shown: Console, failures: Sequence[str]) -> None:
    """Show what ended the demo early."""
    for line in failures:
        shown.print(f"[red]✗[/red] {escape(line)}", soft_wrap=True)


def show_traces(shown: Console, place: Place, example: str, pages: str = "") -> None:
    """Say where the traces are and how to see them; `example` is a trace worth opening.

    `pages` is what the address of its page begins with, where they were exported.
    """
    opened = [f"the broken canary in Jaeger:     {pages}{example}"] if pages else []
    lines = (
        f"some whole traces, in one file   {place.picked_traces}",
        f"all spans of the router          {place.router_traces}/traces-*.jsonl",
        f"all spans of the server          {place.server_traces}/traces-*.jsonl",
        f"docker run --rm -p 16686:16686 {JAEGER}",
        "then http://localhost:16686, Search, Upload, and choose the first file",
        f"the broken canary, caught:       trace {example}",
        *opened,
    )
    shown.print("\n[bold]Traces[/bold]")
    for line in lines:
        shown.print(f"  {escape(line)}", soft_wrap=True)


def show_next(shown: Console, place: Place, trace_id: str, mismatch: str) -> None:
    """Say what to type next: of a trace, and of what the router's state folder still knows."""
    control = place.address_at(9002)
    calling = "" if place.host == LOOPBACK else f" --control {control}"
    lines = (
        f"coalmine traces {place.picked_traces} --trace {trace_id}",
        "",
        "what was learnt is kept; in one terminal, without a proxy:",
        f"coalmine router control --config {place.router_config} --listen {control}",
        "and in another:",
        f"coalmine status digits --candidate broken{calling}; echo $?",
        f"coalmine mismatches digits --candidate broken --worst --limit 5{calling}",
        f"coalmine mismatches digits --export {mismatch or 'ID'} --to {place.folder}{calling}",
    )
    shown.print("\n[bold]Next[/bold]")
    for line in lines:
        shown.print(f"  {escape(line)}" if line else "", soft_wrap=True)

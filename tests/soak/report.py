"""What a soak has seen, as a table for people and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak.tally import Outcome, Soaked


def show(console: Console, soaked: Soaked) -> None:
    """Print a row for each fault, and the router's memory."""
    table = Table(title="soak", title_justify="left")
    table.add_column("fault", no_wrap=True)
    for name in ("requests", "failed"):
        table.add_column(name, justify="right")
    table.add_column("expected failures")
    for name in ("p50 ms", "p99 ms", "well after s"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for each in soaked.outcomes:
        table.add_row(*_row(each), style="" if each.is_good else "red")
    console.print(table)
    for each in filter(lambda each: each.what_failed, soaked.outcomes):
        console.print(f"{each.fault}: {each.what_failed}")
    _show_memory(console, soaked)


def as_json(soaked: Soaked) -> dict[str, Any]:
    """Return all of it for programs."""
    after = soaked.after_mib
    return {
        "good": soaked.is_good,
        "faults": [_told(each) for each in soaked.outcomes],
        "rss_mib": {kind: [mib, after.get(kind, 0.0)] for kind, mib in soaked.before_mib.items()},
        "rss_grown": soaked.grown,
    }


def _show_memory(console: Console, soaked: Soaked) -> None:
    for kind, mib in soaked.before_mib.items():
        is_bad = kind in soaked.grown
        seen = f"{mib:.0f} MiB before, {soaked.after_mib.get(kind, 0):.0f} MiB after"
        verdict = "BAD" if is_bad else "good"
        console.print(f"memory of {kind}: {seen}: {verdict}", style="red" if is_bad else "")


def _row(outcome: Outcome) -> list[str]:
    tally = outcome.tally
    return [
        outcome.fault,
        f"{tally.requests:,}",
        str(len(tally.failures)),
        outcome.expected,
        f"{tally.p50_ms:.1f}",
        f"{tally.p99_ms:.1f}",
        f"{outcome.well_after_s:.1f}",
        "good" if outcome.is_good else "BAD",
    ]


def _told(outcome: Outcome) -> dict[str, Any]:
    tally = outcome.tally
    return {
        "fault": outcome.fault,
        "requests": tally.requests,
        "failed": len(tally.failures),
        "expected": outcome.excused,
        "p50_ms": tally.p50_ms,
        "p99_ms": tally.p99_ms,
        "variants": tally.variants,
        "well_after_s": outcome.well_after_s,
        "good": outcome.is_good,
        "what_failed": outcome.what_failed,
        "failures": tally.said()["failures"][:20],
    }

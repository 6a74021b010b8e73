"""What a soak has seen, as a table for people and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak.tally import Outcome

Memory = Mapping[str, float]


def show(console: Console, outcomes: Sequence[Outcome], before: Memory, after: Memory) -> None:
    """Print a row for each fault, and the router's memory."""
    table = Table(title="soak", title_justify="left")
    table.add_column("fault", no_wrap=True)
    for name in ("requests", "failed"):
        table.add_column(name, justify="right")
    table.add_column("expected failures")
    for name in ("p50 ms", "p99 ms", "well after s"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for each in outcomes:
        table.add_row(*_row(each), style="" if each.is_good else "red")
    console.print(table)
    for each in filter(lambda each: each.what_failed, outcomes):
        console.print(f"{each.fault}: {each.what_failed}")
    for kind, mib in before.items():
        console.print(f"memory of {kind}: {mib:.0f} MiB before, {after.get(kind, 0):.0f} MiB after")


def as_json(outcomes: Sequence[Outcome], before: Memory, after: Memory) -> dict[str, Any]:
    """Return all of it for programs."""
    return {
        "good": all(each.is_good for each in outcomes),
        "faults": [_told(each) for each in outcomes],
        "rss_mib": {kind: [before[kind], after.get(kind, 0.0)] for kind in before},
    }


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

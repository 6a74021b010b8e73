"""How a route's health looks to the operator: the word, and a line for each reason. Pure."""

from collections.abc import Iterator
from typing import Final

from rich.console import RenderableType

from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    STRONG,
    Cell,
    indented_line,
    line,
)
from coalmine_client.cli.route_health import HealthWord, RouteHealth

_STYLES: Final[dict[HealthWord, str]] = {"SERVING": GOOD, "DEGRADED": DOUBTFUL, "DOWN": BAD}


def health_word(health: RouteHealth | None) -> Cell:
    """Return the word alone, as a cell; a dash where it is not known."""
    return (health.word, _STYLES[health.word]) if health else "-"


def health_lines(health: RouteHealth, reasons_max: int | None = None) -> Iterator[RenderableType]:
    """Yield the word with the first reason, then the others; with a bound, how many are folded."""
    style = f"{STRONG} {_STYLES[health.word]}"
    if not health.reasons:
        yield line((health.word, style))
        return
    first, *others = health.reasons[:reasons_max]
    indent = len(health.word) + 2
    yield indented_line(indent, (f"{health.word}:", style), " ", first)
    for each in others:
        yield indented_line(indent, " " * indent, each)
    if folded := len(health.reasons) - 1 - len(others):
        yield line((f"{' ' * indent}and {folded:,} more: --all shows them", FAINT))

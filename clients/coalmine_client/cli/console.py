"""What a verb prints: fitted to a terminal, or as plain whole lines for a pipe."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from coalmine.shown_value import printable

# A narrower terminal wraps lines by itself.
_TERMINAL_WIDTH_MIN: Final = 80
# So far a column of names shrinks, folding them, before a table gets wider than the terminal.
_FOLDED_WIDTH_MIN: Final = 12
_GAP: Final = 2
# Wider than any row, so that nothing is cut or wrapped where a program reads.
_PIPE_WIDTH: Final = 4_000

GOOD: Final = "green"
BAD: Final = "red"
DOUBTFUL: Final = "yellow"
FAINT: Final = "dim"
STRONG: Final = "bold"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in a form that stays.")]

# A text, or a text with its style.
Cell = str | tuple[str, str]


def output_console() -> Console:
    """Return a console on standard output: as wide as the terminal, or wide enough for a pipe."""
    # No markup: what servers say is shown as it is, brackets too.
    if sys.stdout.isatty():
        return Console(markup=False, highlight=False, emoji=False)
    return Console(
        markup=False,
        highlight=False,
        emoji=False,
        width=_PIPE_WIDTH,
        no_color=True,
        force_terminal=False,
    )


def show(*parts: RenderableType) -> None:
    """Print `parts` to standard output, without trailing spaces."""
    console = output_console()
    console.width = max(console.width, _TERMINAL_WIDTH_MIN)
    with console.capture() as capture:
        for part in parts:
            console.print(part, crop=False)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print `value` as JSON; without `indent`, on one line."""
    sys.stdout.write(json.dumps(value, indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()


class UncutTable(Table):
    """A table that cuts no figure: it is wider than the terminal where the figures need it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = sum(map(_width_needed, self.columns)) + _GAP * (len(self.columns) - 1)
        width = max(options.max_width, needed)
        return super().__rich_console__(console, options.update(width=width))


def _width_needed(column: Column) -> int:
    """Return how wide a column must be at least."""
    texts = (column.header, *column.cells)
    widest = max(cell_len(each.plain if isinstance(each, Text) else str(each)) for each in texts)
    return widest if column.no_wrap else min(widest, _FOLDED_WIDTH_MIN)


class IndentedText:
    """A text that wraps; its second and further lines are indented by so many cells."""

    def __init__(self, text: Text, indent: int) -> None:
        self._text = text
        self._indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width - self._indent, _FOLDED_WIDTH_MIN)
        first, *others = self._text.wrap(console, width, overflow="fold")
        yield first
        for each in others:
            each.pad_left(self._indent)
            yield each


class Fitted:
    """As much of `content` as the terminal has rows for. The last row says how much is left out.

    A line that is wider than the terminal goes on in the next row: a display that repaints itself
    would lose the rest. `hint` says how to see more.
    """

    def __init__(self, content: RenderableType, hint: str) -> None:
        self._content = content
        self._hint = hint

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = Segment.split_lines(console.render(self._content, options))
        rows = [row for each in whole for row in _screen_rows(each, options.max_width)]
        room = options.size.height
        if len(rows) > room:
            said = f"{len(rows) - room + 1:,} more lines: {self._hint}"
            rows[room - 1 :] = [[Segment(said[: options.max_width], console.get_style(FAINT))]]
        for row in rows:
            yield from row
            yield Segment.line()


def _screen_rows(line: list[Segment], width: int) -> Iterable[list[Segment]]:
    """Return a line as rows of at most so many cells, without the spaces at its end."""
    needed = cell_len("".join(each.text for each in line).rstrip())
    return Segment.divide(line, [*range(width, needed, width), needed]) if needed else [[]]


def table(*columns: str) -> Table:
    """Return a table without rules.

    A name that begins with `>` is a column of numbers. One that begins with `=` is a column that
    never wraps, so that its values can be copied.
    """
    made = UncutTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style=FAINT)
    for column in columns:
        if column.startswith((">", "=")):
            justify: JustifyMethod = "right" if column.startswith(">") else "left"
            made.add_column(column[1:], justify=justify, no_wrap=True)
        else:
            made.add_column(column, overflow="fold")
    return made


def add_row(to: Table, *cells: Cell) -> None:
    """Add a row, with control characters spelt out."""
    to.add_row(*(_printable_cell(cell) for cell in cells))


def line(*parts: Cell) -> Text:
    """Return one line of parts, each a text or a (text, style)."""
    return Text.assemble(*(_printable_cell(part) for part in parts))


def indented_line(indent: int, *parts: Cell) -> RenderableType:
    """Return one line of parts. Where it wraps, the further lines are indented."""
    return IndentedText(line(*parts), indent)


def _printable_cell(cell: Cell) -> Text:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(printable(text), style)


def group(parts: Sequence[RenderableType]) -> RenderableType:
    """Return `parts` one under the other."""
    return Group(*parts)


def moment(at_ns: int) -> str:
    """Return a time in UTC, to the second; a dash for none."""
    if not at_ns:
        return "-"
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def counts_text(counts: dict[str, int]) -> str:
    """Return counts by name, the largest first: `queue_full 7, too_large 3`."""
    largest_first = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{name} {count:,}" for name, count in largest_first)


def nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that are above 0."""
    return {name: count for name, count in counts.items() if count}

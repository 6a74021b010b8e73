"""Which addresses were compared, and which of them stand out, as the operator sees it. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    Cell,
    add_row,
    indented_line,
    moment,
    table,
)

_ROWS_MAX: Final = 10
_INDENT: Final = "  "


def address_lines(found: pb.ComparisonCounts) -> Iterator[RenderableType]:
    """Yield how many addresses of each side were compared, and a row for each of several."""
    sides = (
        (found.candidate, found.candidate_addresses),
        (found.reference, found.reference_addresses),
    )
    if not any(each for _, each in sides):
        return
    counts = [_compared_text(name, each) for name, each in sides if each]
    if found.addresses_let_go:
        counts.append(f"{found.addresses_let_go:,} more forgotten")
    yield indented_line(4, (f"{_INDENT}addresses compared: {' · '.join(counts)}", FAINT))
    several = [(name, each) for name, of in sides if len(of) > 1 for each in of]
    if several:
        yield _address_table(several)
    if (more := len(several) - _ROWS_MAX) > 0:
        yield indented_line(4, (f"{_INDENT}and {more:,} more", FAINT))


def _compared_text(name: str, of: Sequence[pb.AddressCounts]) -> str:
    ready = [each for each in of if each.ready]
    compared = sum(each.compared > 0 for each in ready or of)
    return f"{name} {compared:,} of {len(ready):,} ready" if ready else f"{name} {compared:,}"


def _address_table(several: Sequence[tuple[str, pb.AddressCounts]]) -> RenderableType:
    rows = table(f"{_INDENT}of", "=address", "ready", ">compared", ">mismatch", ">failed", "=last")
    for name, of in sorted(several, key=lambda each: _address_order(each[1]))[:_ROWS_MAX]:
        wrong = BAD if of.stands_out else ""
        cells: list[Cell] = [
            f"{_INDENT}{name}",
            (of.address, wrong),
            "yes" if of.ready else "-",
            (f"{of.compared:,}", DOUBTFUL if of.ready and not of.compared else ""),
            (f"{of.mismatch:,}", wrong),
            (f"{of.failed:,}", wrong),
            moment(of.seen_ns) if of.seen_ns else "never",
        ]
        add_row(rows, *cells)
    return rows


def _address_order(of: pb.AddressCounts) -> tuple[bool, bool, float]:
    """Return the place in the list: who stands out, then who was not compared, then by rate."""
    rate = (of.mismatch + of.failed) / max(1, of.compared)
    return not of.stands_out, not (of.ready and not of.compared), -rate

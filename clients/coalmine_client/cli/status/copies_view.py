"""How copies look to the operator: what became of those for shadows, audit and noise. Pure."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    STRONG,
    add_row,
    counts_text,
    line,
    nonzero,
    table,
)
from coalmine_client.cli.policy import copy_shares

_CIRCUITS = {
    "open": "no calls are made: they failed too often",
    "half_open": "one call is tried: they failed too often",
}

# A role, and a variant.
_Lane = tuple[str, str]


def copies(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a row a lane, which adds up, and a line for whatever went wrong in it.

    offered = on their way + sent + dropped; sent = answered + failed.
    """
    counts = {(_role(of), of.variant): of for of in status.shadows}
    shares = copy_shares(status.route)
    lanes = list({**shares, **counts})
    if not lanes:
        return
    rows = table(
        "copies for",
        "role",
        ">share",
        ">offered",
        ">on their way",
        ">sent",
        ">answered",
        ">failed",
        ">compared",
        ">dropped",
    )
    for lane in lanes:
        _add_lane(rows, lane, shares.get(lane, 0), counts.get(lane, pb.ShadowCounts()))
    yield rows
    for lane, of in counts.items():
        for trouble, style in _troubles(of):
            yield line((f"{lane[1]} ({lane[0]}): {trouble}", style))


def _add_lane(rows: Table, lane: _Lane, share_bp: int, of: pb.ShadowCounts) -> None:
    failed, dropped = of.failed + of.timed_out, sum(of.dropped.values())
    add_row(
        rows,
        (lane[1], STRONG),
        lane[0],
        percent(share_bp),
        f"{of.offered:,}",
        f"{of.waiting + of.under_way:,}",
        f"{of.sent:,}",
        f"{of.answered:,}",
        (f"{failed:,}", BAD if failed else ""),
        f"{of.compared:,}",
        (f"{dropped:,}", DOUBTFUL if dropped else ""),
    )


def _troubles(of: pb.ShadowCounts) -> Iterator[tuple[str, str]]:
    """Yield what went wrong in a lane, each with its style."""
    if words := _CIRCUITS.get(of.circuit):
        yield words, BAD
    if dropped := nonzero(of.dropped):
        yield f"dropped {counts_text(dropped)}", DOUBTFUL
    if of.timed_out:
        yield f"{of.timed_out:,} of those that failed timed out", DOUBTFUL
    if of.uncompared:
        yield f"{of.uncompared:,} of those sent were not compared", DOUBTFUL


def _role(of: pb.ShadowCounts) -> str:
    return of.role or "shadow"

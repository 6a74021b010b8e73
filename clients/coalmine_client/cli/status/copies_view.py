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

_RoleAndVariant = tuple[str, str]


def copies_lines(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a row for each role and variant, which adds up, and a line for whatever went wrong.

    offered = on their way + sent + dropped; sent = answered + failed.
    """
    counts = {(_role_of(of), of.variant): of for of in status.shadows}
    shares = copy_shares(status.route)
    copied = list({**shares, **counts})
    if not copied:
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
    for key in copied:
        _add_copies_row(rows, key, shares.get(key, 0), counts.get(key, pb.ShadowCounts()))
    yield rows
    for (role, variant), of in counts.items():
        for trouble, style in _trouble_texts(of):
            yield line((f"{variant} ({role}): {trouble}", style))


def _add_copies_row(rows: Table, key: _RoleAndVariant, share_bp: int, of: pb.ShadowCounts) -> None:
    failed, dropped = of.failed + of.timed_out, sum(of.dropped.values())
    add_row(
        rows,
        (key[1], STRONG),
        key[0],
        percent(share_bp),
        f"{of.offered:,}",
        f"{of.waiting + of.under_way:,}",
        f"{of.sent:,}",
        f"{of.answered:,}",
        (f"{failed:,}", BAD if failed else ""),
        f"{of.compared:,}",
        (f"{dropped:,}", DOUBTFUL if dropped else ""),
    )


def _trouble_texts(of: pb.ShadowCounts) -> Iterator[tuple[str, str]]:
    """Yield what went wrong with these copies, each with its style."""
    if words := _CIRCUITS.get(of.circuit):
        yield words, BAD
    if dropped := nonzero(of.dropped):
        yield f"dropped {counts_text(dropped)}", DOUBTFUL
    if of.timed_out:
        yield f"{of.timed_out:,} of those that failed timed out", DOUBTFUL
    if of.uncompared:
        yield f"{of.uncompared:,} of those sent were not compared", DOUBTFUL


def _role_of(of: pb.ShadowCounts) -> str:
    return of.role or "shadow"

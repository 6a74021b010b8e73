"""`coalmine history`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from coalmine.command_line.number_options import whole_option
from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import AsJson, add_row, line, moment, show, show_json, table
from coalmine_client.cli.control import TIMEOUT_S, ControlClient, calling
from coalmine_client.cli.message_json import message_json

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def history(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    limit: Annotated[int, whole_option(min=1, max=10_000, help="How many changes.")] = 50,
    json: AsJson = False,
    control: ControlClient,
) -> None:
    """List the changes of a route: who, when, why, from and to; the newest first.

    Example: coalmine history digits --limit 10
    """

    async def get_history(router: "RouteControlAsyncStub") -> pb.GetHistoryResponse:
        return await router.GetHistory(
            pb.GetHistoryRequest(route=route, limit=limit), timeout=TIMEOUT_S
        )

    found = control.ask(get_history)
    if json:
        show_json(message_json(found))
    else:
        show(history_view(found))


def history_view(found: pb.GetHistoryResponse) -> RenderableType:
    """Return a row for each change."""
    if not found.changes:
        return line("no changes")
    rows = table(">revision", "=when", "who", "what", "from → to", "why")
    for change in found.changes:
        add_row(
            rows,
            str(change.revision),
            moment(change.at_ns),
            change.actor or "-",
            change.action,
            moves_text(change.before, change.after),
            change.reason or "-",
        )
    return rows


def moves_text(before: pb.Split, after: pb.Split) -> str:
    """Return the shares that changed: `canary 0% → 10%, stable 100% → 90%`."""
    moves = [
        *_changed_shares(dict(before.weights_bp), dict(after.weights_bp), ""),
        *_changed_shares(dict(before.shadows_bp), dict(after.shadows_bp), "shadow "),
    ]
    return ", ".join(moves) or "nothing"


def _changed_shares(old: dict[str, int], new: dict[str, int], prefix: str) -> list[str]:
    return [
        f"{prefix}{name} {percent(old.get(name, 0))} → {percent(new.get(name, 0))}"
        for name in sorted({*old, *new})
        if old.get(name, 0) != new.get(name, 0)
    ]

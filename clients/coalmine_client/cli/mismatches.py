"""`coalmine mismatches`."""

from typing import TYPE_CHECKING, Annotated

import typer

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli import as_json
from coalmine_client.cli.console import AsJson, show, show_json
from coalmine_client.cli.control import TIMEOUT_S, Control, calling
from coalmine_client.cli.kept import read_kept
from coalmine_client.cli.mismatch_view import mismatch_view, mismatches_view

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def mismatches(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    output: Annotated[
        str, typer.Option(metavar="NAME", help="Only those in which this output differs.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many examples.")] = 20,
    show_id: Annotated[
        str, typer.Option("--show", metavar="ID", help="Show this one, tensor by tensor.")
    ] = "",
    control: Control,
    json: AsJson = False,
) -> None:
    """List the kept examples of answers that differ, or show one; the newest first."""
    if show_id:
        _show_one(pb.GetMismatchRequest(route=route, id=show_id), control, json=json)
        return
    wanted = pb.ListMismatchesRequest(route=route, output=output, limit=limit)

    async def listed(router: "RouteControlAsyncStub") -> pb.ListMismatchesResponse:
        return await router.ListMismatches(wanted, timeout=TIMEOUT_S)

    found = control.ask(listed)
    if json:
        show_json(as_json.mismatches(found))
    else:
        show(mismatches_view(found))


def _show_one(wanted: pb.GetMismatchRequest, control: Control, *, json: bool) -> None:
    async def got(router: "RouteControlAsyncStub") -> pb.Mismatch:
        return await router.GetMismatch(wanted, timeout=TIMEOUT_S)

    found = control.ask(got)
    kept = read_kept(found)
    if json:
        show_json({**as_json.mismatch(found), **kept.as_json()})
    else:
        show(mismatch_view(found, kept))

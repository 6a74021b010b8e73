"""`coalmine routes`."""

from typing import TYPE_CHECKING

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli import as_json
from coalmine_client.cli.console import AsJson, add, line, show, show_json, stacked, table
from coalmine_client.cli.control import TIMEOUT_S, Control, calling
from coalmine_client.cli.policy import match, sticky

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def routes(*, control: Control, json: AsJson = False) -> None:
    """List the routes, and how each is split.

    Example: coalmine routes --control 127.0.0.1:9002
    """

    async def listed(router: "RouteControlAsyncStub") -> pb.ListRoutesResponse:
        return await router.ListRoutes(pb.ListRoutesRequest(), timeout=TIMEOUT_S)

    found = control.ask(listed)
    if json:
        show_json(as_json.routes(found))
    else:
        show(routes_view(found))


def routes_view(found: pb.ListRoutesResponse) -> RenderableType:
    """Return a row for each route, under the table's revision."""
    rows = table("route", "match", "split", "shadows", "sticky")
    for route in found.routes:
        split = ", ".join(f"{each.name} {percent(each.weight_bp)}" for each in route.variants)
        shadows = ", ".join(f"{each.variant} {percent(each.share_bp)}" for each in route.shadows)
        add(rows, route.name, match(route), split, shadows or "-", sticky(route) or "-")
    if not found.routes:
        return line("no routes, revision ", str(found.revision))
    return stacked([rows, line(f"revision {found.revision}")])

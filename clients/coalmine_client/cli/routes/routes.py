"""`coalmine routes`."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import grpc
from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import AsJson, add_row, group, line, show, show_json, table
from coalmine_client.cli.control import TIMEOUT_S, ControlClient, calling
from coalmine_client.cli.health_view import health_word
from coalmine_client.cli.json_values import Json
from coalmine_client.cli.message_json import message_json
from coalmine_client.cli.policy import match_text, sticky_key
from coalmine_client.cli.route_health import RouteHealth, health_of

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

_ASKED_AT_ONCE_MAX: Final = 16

# By route; of one that was removed meanwhile, or whose status could not be had, none.
Healths = Mapping[str, RouteHealth]


@calling
def routes(*, json: AsJson = False, control: ControlClient) -> None:
    """List the routes, how each is split, and its health.

    The exit code does not go by the health; that of coalmine status does.

    Example: coalmine routes --control 127.0.0.1:9002
    """

    async def list_routes(router: "RouteControlAsyncStub") -> tuple[pb.ListRoutesResponse, Healths]:
        found = await router.ListRoutes(pb.ListRoutesRequest(), timeout=TIMEOUT_S)
        return found, await _get_healths(router, [each.name for each in found.routes])

    found, healths = control.ask(list_routes)
    if json:
        show_json(_routes_json(found, healths))
    else:
        show(routes_view(found, healths))


async def _get_healths(router: "RouteControlAsyncStub", names: Iterable[str]) -> Healths:
    """Return how the routes are, asked one by one: a status of all at once has no bound."""
    healths: dict[str, RouteHealth] = {}
    left = iter(names)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_ASKED_AT_ONCE_MAX):
            tasks.create_task(_add_healths(router, left, healths))
    return healths


async def _add_healths(
    router: "RouteControlAsyncStub", left: Iterator[str], healths: dict[str, RouteHealth]
) -> None:
    for name in left:
        try:
            status = await router.GetRoute(pb.GetRouteRequest(route=name), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:  # it is listed all the same
            continue
        healths[name] = health_of(status)


def _routes_json(found: pb.ListRoutesResponse, healths: Healths) -> Json:
    """Return the routes, each with its health: null where it isn't known."""
    listed = message_json(found)
    for each in listed["routes"]:
        health = healths.get(each["name"])
        each["health"] = health.as_json() if health else None
    return listed


def routes_view(found: pb.ListRoutesResponse, healths: Healths) -> RenderableType:
    """Return a row for each route, under the table's revision."""
    rows = table("route", "=health", "match", "split", "shadows", "sticky")
    for route in found.routes:
        split = ", ".join(f"{each.name} {percent(each.weight_bp)}" for each in route.variants)
        shadows = ", ".join(f"{each.variant} {percent(each.share_bp)}" for each in route.shadows)
        health = health_word(healths.get(route.name))
        match, sticky = match_text(route), sticky_key(route) or "-"
        add_row(rows, route.name, health, match, split, shadows or "-", sticky)
    if not found.routes:
        return line("no routes, revision ", str(found.revision))
    return group([rows, line(f"revision {found.revision}")])

"""`coalmine status`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli import as_json
from coalmine_client.cli.console import AsJson, show, show_json, terminal_or_pipe
from coalmine_client.cli.control import TIMEOUT_S, Control, calling
from coalmine_client.cli.failure import Failure
from coalmine_client.cli.status_view import status_view

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def status(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until Ctrl-C.")] = False,
    control: Control,
    json: AsJson = False,
) -> None:
    """Show a route's weights, traffic, latency, shadows and comparisons."""
    if watch:
        _watch(route, control, json=json)
        return

    async def got(router: "RouteControlAsyncStub") -> pb.RouteStatus:
        return await router.GetRoute(pb.GetRouteRequest(route=route), timeout=TIMEOUT_S)

    found = control.ask(got)
    if json:
        show_json(as_json.status(found))
    else:
        show(status_view(found))


def _watch(route: str, control: Control, *, json: bool) -> None:
    """Show the route again with every change. Raises Failure once the router ends it."""
    if json:
        _follow(route, control, lambda found: show_json(as_json.status(found), indent=None))
    elif not terminal_or_pipe().is_terminal:
        _follow(route, control, lambda found: show(status_view(found), ""))
    else:
        with Live(console=terminal_or_pipe(), auto_refresh=False) as live:
            _follow(route, control, lambda found: live.update(status_view(found), refresh=True))
    raise Failure("the router ended the watch")


def _follow(route: str, control: Control, each: Callable[[pb.RouteStatus], None]) -> None:
    async def followed(router: "RouteControlAsyncStub") -> None:
        async for found in router.WatchRoute(pb.WatchRouteRequest(route=route)):
            each(found)

    control.ask(followed)

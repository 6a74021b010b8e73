"""`coalmine status`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import RenderableType
from rich.live import Live

from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.control.v1 import control_pb2 as pb
from coalmine.shown_value import one_line
from coalmine.units import duration_ns
from coalmine_client.cli.console import AsJson, Fitted, output_console, show, show_json
from coalmine_client.cli.control import TIMEOUT_S, ControlClient, calling
from coalmine_client.cli.route_health import health_of
from coalmine_client.cli.status.status_brief import status_brief
from coalmine_client.cli.status.status_json import status_json
from coalmine_client.cli.status.status_view import status_view
from coalmine_client.cli.status.verdict_wait import NoVerdict, Ruling, ruling_on, wait_for_verdict

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

_TIMEOUT: Final = "10m"
_LARGER: Final = "enlarge the window"

View = Callable[[pb.RouteStatus], RenderableType]


@calling
def status(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until Ctrl-C.")] = False,
    until_verdict: Annotated[
        bool, typer.Option("--until-verdict", help="Wait until the verdict is PASS or FAIL.")
    ] = False,
    candidate: Annotated[
        str, typer.Option(metavar="NAME", help="Go by the verdict on this candidate alone.")
    ] = "",
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"How long to wait, such as 90s or {_TIMEOUT}."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show gates, outputs, segments, copies and proxies too.")
    ] = False,
    json: AsJson = False,
    control: ControlClient,
) -> None:
    """Show a route's health, the verdict on each candidate, weights, traffic and latency.

    Exits with 3 where the verdict is FAIL, with 4 where --until-verdict has none in time, and
    else with 5 where the health is not SERVING.

    Example: coalmine status digits --until-verdict --timeout 10m
    """
    timeout_s = _timeout_s(timeout, is_waiting=until_verdict)
    if watch and until_verdict:
        raise WrongUsage("--watch and --until-verdict exclude each other")
    view = status_view if everything else status_brief
    if watch:
        _show_changes(route, control, None if json else view)
    elif until_verdict:
        found, ruled = wait_for_verdict(control, route, candidate, timeout_s)
        if json or ruled.is_decided:
            _show_status(found, None if json else view)
        if not ruled.is_decided:
            raise NoVerdict(_no_verdict_line(found, ruled, timeout_s))
        _raise_if_unwell(found, ruled)
    else:
        found = control.ask(lambda router: _get_status(router, route))
        ruled = ruling_on(found, candidate)
        _show_status(found, None if json else view)
        _raise_if_unwell(found, ruled)


async def _get_status(router: "RouteControlAsyncStub", route: str) -> pb.RouteStatus:
    return await router.GetRoute(pb.GetRouteRequest(route=route), timeout=TIMEOUT_S)


def _show_status(found: pb.RouteStatus, view: View | None) -> None:
    """Show the status, as JSON without a view."""
    if view is None:
        show_json(status_json(found))
    else:
        show(view(found))


def _raise_if_unwell(found: pb.RouteStatus, ruled: Ruling) -> None:
    """Raise VerdictFailed or NotServing where not all is well."""
    ruled.check()
    health_of(found).check()


def _no_verdict_line(found: pb.RouteStatus, ruled: Ruling, timeout_s: float) -> str:
    health = health_of(found)
    wrong = f"; {health.line}" if health.reasons else ""
    return f"no verdict within {timeout_s:g} s: {one_line(ruled.said)}{wrong}"


def _timeout_s(timeout: str | None, *, is_waiting: bool) -> float:
    if timeout is not None and not is_waiting:
        raise WrongUsage("--timeout goes with --until-verdict")
    try:
        timeout_ns = duration_ns(timeout if timeout is not None else _TIMEOUT)
    except ValueError as error:
        raise WrongUsage(f"--timeout: {error}") from None
    if not timeout_ns:
        raise WrongUsage(f"--timeout: expected a time to wait, got '{timeout}'")
    return timeout_ns / 10**9


def _show_changes(route: str, control: ControlClient, view: View | None) -> None:
    """Show the route again with every change. Raises Failure once the router ends it."""
    if view is None:
        _follow(route, control, lambda found: show_json(status_json(found), indent=None))
    elif not output_console().is_terminal:
        _follow(route, control, lambda found: show(view(found), ""))
    else:
        hint = _LARGER if view is status_brief else f"{_LARGER}, or leave out --all"
        with Live(console=output_console(), auto_refresh=False) as live:
            _follow(
                route,
                control,
                lambda found: live.update(Fitted(view(found), hint), refresh=True),
            )
    raise Failure("the router ended the watch")


def _follow(route: str, control: ControlClient, each: Callable[[pb.RouteStatus], None]) -> None:
    async def watch_route(router: "RouteControlAsyncStub") -> None:
        async for found in router.WatchRoute(pb.WatchRouteRequest(route=route)):
            each(found)

    control.ask(watch_route)

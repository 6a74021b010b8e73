"""`coalmine weights`, and the table that a change is shown with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.shares import percent
from coalmine_client.cli.console import DOUBTFUL, GOOD, STRONG, add_row, group, line, show, table
from coalmine_client.cli.control import (
    TIMEOUT_S,
    ControlClient,
    ExpectRevision,
    Reason,
    actor,
    calling,
)
from coalmine_client.cli.percents import parse_shares

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

_Change = tuple[pb.RouteStatus, pb.ChangeResponse]


@calling
def weights(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    shares: Annotated[list[str], typer.Argument(metavar="VARIANT=PERCENT...")],
    *,
    reason: Reason = "",
    expect_revision: ExpectRevision = 0,
    control: ControlClient,
) -> None:
    """Set the weights of a route's variants, such as canary=10; the remainder goes to stable.

    Example: coalmine weights digits canary=10 --reason "0 mismatches"
    """
    change = pb.SetWeightsRequest(
        route=route,
        weights_bp=parse_shares(shares),
        reason=reason,
        expect_revision=expect_revision,
        actor=actor(),
    )

    async def set_weights(router: "RouteControlAsyncStub") -> _Change:
        before = await router.GetRoute(pb.GetRouteRequest(route=route), timeout=TIMEOUT_S)
        return before, await router.SetWeights(change, timeout=TIMEOUT_S)

    before, after = control.ask(set_weights)
    show(change_view(before, after, "variant", weights_of(before.route), weights_of(after.route)))


def weights_of(route: pb.Route) -> dict[str, int]:
    """Return the weight of each variant, in the route's order."""
    return {each.name: each.weight_bp for each in route.variants}


def change_view(
    before: pb.RouteStatus,
    after: pb.ChangeResponse,
    what: str,
    old: Mapping[str, int],
    new: Mapping[str, int],
) -> RenderableType:
    """Return the shares before and after, the new revision, and how many proxies serve it."""
    rows = table(what, f">revision {before.revision}", ">", f">revision {after.revision}")
    for name in {**old, **new}:
        then, now = percent(old.get(name, 0)), percent(new.get(name, 0))
        add_row(rows, name, then, "→", (now, STRONG if then != now else ""))
    return group(
        [rows, line(f"{after.route.name} is at revision {after.revision}, ", proxies_text(after))]
    )


def proxies_text(after: pb.ChangeResponse) -> tuple[str, str]:
    """Return how many proxies serve the change, and a style."""
    words = f"served by {after.proxies_current} of {after.proxies} proxies"
    everywhere = 0 < after.proxies == after.proxies_current
    return words, GOOD if everywhere else DOUBTFUL

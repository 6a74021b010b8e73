"""`coalmine shadow`."""

from typing import TYPE_CHECKING, Annotated

import typer

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.console import show
from coalmine_client.cli.control import (
    TIMEOUT_S,
    ControlClient,
    ExpectRevision,
    Reason,
    actor,
    calling,
)
from coalmine_client.cli.percents import parse_share
from coalmine_client.cli.routes.weights import change_view

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def shadow(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    share: Annotated[str, typer.Argument(metavar="VARIANT=PERCENT")],
    *,
    reason: Reason = "",
    expect_revision: ExpectRevision = 0,
    control: ControlClient,
) -> None:
    """Copy a share of a route's requests to a variant that never answers; 0% switches it off.

    Example: coalmine shadow digits canary=100%
    """
    variant, share_bp = parse_share(share)
    change = pb.SetShadowRequest(
        route=route,
        variant=variant,
        share_bp=share_bp,
        reason=reason,
        expect_revision=expect_revision,
        actor=actor(),
    )

    async def set_shadow(
        router: "RouteControlAsyncStub",
    ) -> tuple[pb.RouteStatus, pb.ChangeResponse]:
        before = await router.GetRoute(pb.GetRouteRequest(route=route), timeout=TIMEOUT_S)
        return before, await router.SetShadow(change, timeout=TIMEOUT_S)

    before, after = control.ask(set_shadow)
    old, new = shadows_of(before.route), {variant: 0, **shadows_of(after.route)}
    show(change_view(before, after, "shadow", old, new))


def shadows_of(route: pb.Route) -> dict[str, int]:
    """Return the share of each shadow, in the route's order."""
    return {each.variant: each.share_bp for each in route.shadows}

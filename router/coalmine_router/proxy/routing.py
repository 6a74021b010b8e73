"""One route table made ready for requests: assigners and channels beside each route."""

from collections.abc import Mapping
from dataclasses import dataclass

from coalmine_router.channels import Channels
from coalmine_router.proxy.assign import Assigner, Chance
from coalmine_router.proxy.backends import BoundVariant
from coalmine_router.table import Backend, Route, RouteTable


@dataclass(frozen=True, slots=True)
class RoutedRoute:
    """A route with its assigner and its variants' channels."""

    route: Route
    assigner: Assigner
    variants: Mapping[str, BoundVariant]
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Routing:
    """What one revision routes by. Requests in flight keep the one they began with."""

    revision: int
    by_model: Mapping[str, RoutedRoute]


NOTHING_ROUTED = Routing(0, {})


def routing_of(table: RouteTable, before: Routing, channels: Channels, chance: Chance) -> Routing:
    """Return `table` ready to route by.

    A route that is as it was in `before` keeps its assigner: a change to its neighbour must not
    begin its block anew.
    """
    by_model = {
        route.model: _kept(table, route, before) or _routed(table, route, channels, chance)
        for route in table.routes
    }
    return Routing(table.revision, by_model)


def _kept(table: RouteTable, route: Route, before: Routing) -> RoutedRoute | None:
    old = before.by_model.get(route.model)
    same = old is not None and old.route == route and old.backends == _backends(table, route)
    return old if same else None


def _routed(table: RouteTable, route: Route, channels: Channels, chance: Chance) -> RoutedRoute:
    return RoutedRoute(
        route=route,
        assigner=Assigner(route, chance),
        variants={
            variant.name: BoundVariant(variant, table.by_backend[variant.backend], channels)
            for variant in route.variants
        },
        backends=_backends(table, route),
    )


def _backends(table: RouteTable, route: Route) -> tuple[Backend, ...]:
    return tuple(table.by_backend[variant.backend] for variant in route.variants)

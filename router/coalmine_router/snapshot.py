"""Route tables as messages: pushed to proxies, kept on disk, shown to operators. Pure."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.table import Backend, Route, RouteTable, Shadow, Variant


def table_message(table: RouteTable) -> pb.RouteTable:
    """Return the table as a message."""
    return pb.RouteTable(
        revision=table.revision,
        backends=[pb.Backend(name=each.name, targets=each.targets) for each in table.backends],
        routes=[route_message(route) for route in table.routes],
    )


def table_from(message: pb.RouteTable) -> RouteTable:
    """Return the table of a message. Raises InvalidRequest if anything in it is invalid."""
    return RouteTable(
        revision=message.revision,
        backends=tuple(Backend(each.name, tuple(each.targets)) for each in message.backends),
        routes=tuple(_route_from(route) for route in message.routes),
    )


def route_message(route: Route) -> pb.Route:
    """Return the route as a message."""
    return pb.Route(
        name=route.name,
        match_model=route.model,
        variants=[
            pb.Variant(
                name=each.name,
                backend=each.backend,
                model=each.model,
                version=each.version,
                weight_bp=each.weight_bp,
            )
            for each in route.variants
        ],
        shadows=[pb.Shadow(variant=each.variant, share_bp=each.share_bp) for each in route.shadows],
        sticky_metadata=route.sticky_metadata,
        timeout_ns=route.timeout_ns,
        pinning=route.pinning,
    )


def _route_from(message: pb.Route) -> Route:
    return Route(
        name=message.name,
        model=message.match_model,
        variants=tuple(
            Variant(each.name, each.backend, each.model, each.version, each.weight_bp)
            for each in message.variants
        ),
        shadows=tuple(Shadow(each.variant, each.share_bp) for each in message.shadows),
        sticky_metadata=message.sticky_metadata,
        timeout_ns=message.timeout_ns,
        pinning=message.pinning,
    )

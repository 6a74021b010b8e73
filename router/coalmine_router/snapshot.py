"""Route tables as messages: pushed to proxies, kept on disk, shown to operators. Pure."""

from dataclasses import fields
from typing import Any, Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.table import (
    Backend,
    BackendTls,
    Limits,
    Match,
    Route,
    RouteTable,
    Shadow,
    Sticky,
    Variant,
)

# What a route and its message have by the same name, in the same form.
_ROUTE_OPTIONS: Final = tuple(
    each.name
    for each in fields(Route)
    if each.name not in {"match", "variants", "shadows", "sticky", "limits"}
)


def table_message(table: RouteTable) -> pb.RouteTable:
    """Return the table as a message."""
    return pb.RouteTable(
        revision=table.revision,
        backends=[backend_message(backend) for backend in table.backends],
        routes=[route_message(route) for route in table.routes],
        limits=_limits_message(table.limits),
    )


def table_from(message: pb.RouteTable) -> RouteTable:
    """Return the table of a message. Raises InvalidRequest if anything in it is invalid."""
    return RouteTable(
        revision=message.revision,
        backends=tuple(_backend_from(backend) for backend in message.backends),
        routes=tuple(_route_from(route) for route in message.routes),
        limits=_limits_from(message.limits),
    )


def route_message(route: Route) -> pb.Route:
    """Return the route as a message."""
    return pb.Route(
        match_model=route.match.model,
        match_default=route.match.is_default,
        match_service=route.match.service,
        match_method=route.match.method,
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
        sticky_metadata=route.sticky.metadata,
        sticky_parameter=route.sticky.parameter,
        sticky_id=route.sticky.id,
        limits=_limits_message(route.limits),
        **{name: getattr(route, name) for name in _ROUTE_OPTIONS},
    )


def _route_from(message: pb.Route) -> Route:
    return Route(
        match=Match(
            message.match_model, message.match_default, message.match_service, message.match_method
        ),
        variants=tuple(
            Variant(each.name, each.backend, each.model, each.version, each.weight_bp)
            for each in message.variants
        ),
        shadows=tuple(Shadow(each.variant, each.share_bp) for each in message.shadows),
        sticky=Sticky(message.sticky_metadata, message.sticky_parameter, message.sticky_id),
        limits=_limits_from(message.limits),
        **{name: _frozen_value(getattr(message, name)) for name in _ROUTE_OPTIONS},
    )


def _frozen_value(value: Any) -> Any:
    """Return a field's value; the items of a repeated one as a tuple."""
    return value if isinstance(value, str | int) else tuple(value)


def backend_message(backend: Backend) -> pb.Backend:
    """Return the backend as a message."""
    message = pb.Backend(name=backend.name, targets=backend.targets, token_file=backend.token_file)
    if backend.tls is not None:
        tls = backend.tls
        message.tls.CopyFrom(
            pb.BackendTls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name)
        )
    return message


def _backend_from(message: pb.Backend) -> Backend:
    tls = message.tls
    return Backend(
        message.name,
        tuple(message.targets),
        BackendTls(tls.ca, tls.cert, tls.key, tls.server_name) if message.HasField("tls") else None,
        message.token_file,
    )


def _limits_message(limits: Limits) -> pb.Limits:
    return pb.Limits(in_flight_max=limits.in_flight_max, bytes_max=limits.bytes_max)


def _limits_from(message: pb.Limits) -> Limits:
    return Limits(message.in_flight_max, message.bytes_max)

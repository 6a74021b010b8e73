"""One route table, ready for requests: each route with its assigner, endpoints and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from coalmine.errors import NotFound
from coalmine.telemetry import REQUESTED_VERSION_KEY, REVISION_KEY, VARIANT_KEY
from coalmine_router import wire
from coalmine_router.backends.variant_endpoints import VariantEndpoints
from coalmine_router.metadata import Pair
from coalmine_router.proxy.admission import Admission
from coalmine_router.proxy.assign import Assigner
from coalmine_router.proxy.block import Chance
from coalmine_router.proxy.budget import RetryBudget
from coalmine_router.table import Limits, Route, RouteTable, Variant

# The bound on a name from a caller: the whole name could outgrow the metadata of an answer.
_NAME_CHARS_MAX: Final = 128
_ANY_METHOD: Final = "*"


class KnowsEndpoints(Protocol):
    """Has the endpoints of each variant, as Backends does."""

    def endpoints(self, route: str, variant: str) -> VariantEndpoints:
        """Return the endpoints of a variant of the table in force."""
        ...


@dataclass(slots=True)
class BoundVariant:
    """A variant of one revision: its endpoints, and its additions to requests and answers."""

    variant: Variant
    endpoints: VariantEndpoints
    # These bytes go behind a request; empty where the caller's name and version stand.
    override: bytes
    stamp: tuple[Pair, ...]
    # The common parts of its reports, by method and assignment, and by address: written once.
    assigned_fields: dict[tuple[str, int], bytes] = field(default_factory=dict)
    attempt_fields: dict[str, bytes] = field(default_factory=dict)

    def replaces_version(self, version: str) -> bool:
        """Return whether another version answers than the caller named."""
        own = self.variant.version
        return bool(own and version) and version != own

    def stamp_for(self, version: str) -> tuple[Pair, ...]:
        """Return the trailing metadata for a caller that named `version`; "": none."""
        if not self.replaces_version(version):
            return self.stamp
        return (*self.stamp, (REQUESTED_VERSION_KEY, _sendable_text(version)))


@dataclass(slots=True)
class RoutedRoute:
    """A route of one revision. Assigner, counts and budget outlive it."""

    route: Route
    revision: int
    assigner: Assigner
    variants: Mapping[str, BoundVariant]
    stable: BoundVariant
    admission: Admission
    budget: RetryBudget
    timeout_s: float
    # Whether a variant has a version of its own. Otherwise the caller's doesn't matter.
    sets_version: bool

    def version_of(self, request: bytes) -> str:
        """Return the version that the caller names, where that matters. Raises InvalidRequest."""
        return wire.model_version(request) if self.sets_version else ""

    def refuses(self, bound: BoundVariant, version: str) -> bool:
        """Return whether `bound` must not answer a call for `version`."""
        return self.route.strict_version and bound.replaces_version(version)

    def check_version(self, bound: BoundVariant, version: str) -> None:
        """Raise NotFound where `bound` must not answer for `version`."""
        if self.refuses(bound, version):
            raise NotFound(
                f"variant '{bound.variant.name}' has version {bound.variant.version}, "
                f"not '{version[:_NAME_CHARS_MAX]}', and the route is strict"
            )


@dataclass(frozen=True, slots=True)
class Routing:
    """The routes of one revision. A request in flight keeps the revision that it began with."""

    revision: int
    by_name: Mapping[str, RoutedRoute]
    by_model: Mapping[str, RoutedRoute]
    by_method: Mapping[str, RoutedRoute]
    default: RoutedRoute | None
    limits: Limits

    def route_of_model(self, name: str) -> RoutedRoute:
        """Return the route that answers for a model. Raises NotFound."""
        found = self.by_model.get(name) or self.default
        if found is None:
            raise NotFound(f"no route for model '{name[:_NAME_CHARS_MAX]}'")
        return found

    def route_of_method(self, method: str) -> RoutedRoute | None:
        """Return the route of a full method of another service, without the leading slash."""
        if not self.by_method:
            return None
        service = method.rpartition("/")[0]
        return self.by_method.get(method) or self.by_method.get(f"{service}/{_ANY_METHOD}")


NOTHING_ROUTED = Routing(0, {}, {}, {}, None, Limits())


def routing_of(
    table: RouteTable, before: Routing, backends: KnowsEndpoints, chance: Chance
) -> Routing:
    """Return the routing by `table`.

    A route with the same policy as in `before` keeps its assigner: a change to its neighbour must
    not begin its block anew.
    """
    routed = [
        _routed_route(route, table.revision, before.by_name.get(route.name), backends, chance)
        for route in table.routes
    ]
    return Routing(
        table.revision,
        {each.route.name: each for each in routed},
        {each.route.match.model: each for each in routed if each.route.match.model},
        {_method_pattern(each.route): each for each in routed if each.route.match.service},
        next((each for each in routed if each.route.match.is_default), None),
        table.limits,
    )


def _method_pattern(route: Route) -> str:
    return f"{route.match.service}/{route.match.method or _ANY_METHOD}"


def _routed_route(
    route: Route, revision: int, old: RoutedRoute | None, backends: KnowsEndpoints, chance: Chance
) -> RoutedRoute:
    variants = {
        variant.name: BoundVariant(
            variant,
            backends.endpoints(route.name, variant.name),
            wire.override_bytes(variant.model, variant.version) if not route.match.service else b"",
            ((VARIANT_KEY, variant.name), (REVISION_KEY, str(revision))),
        )
        for variant in route.variants
    }
    admission = old.admission if old else Admission(f"route '{route.name}'", route.limits)
    admission.limits = route.limits
    return RoutedRoute(
        route=route,
        revision=revision,
        assigner=old.assigner if old and old.route == route else Assigner(route, chance),
        variants=variants,
        stable=variants[route.stable.name],
        admission=admission,
        budget=old.budget if old else RetryBudget(),
        timeout_s=route.timeout_ns / 1e9,
        sets_version=not route.match.service and any(each.version for each in route.variants),
    )


def _sendable_text(text: str) -> str:
    """Return a caller's text, as metadata can carry it."""
    return "".join(each if " " <= each <= "~" else "?" for each in text[:_NAME_CHARS_MAX])

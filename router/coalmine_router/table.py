"""Routes, variants and the route table: one immutable snapshot, and the changes it allows. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from coalmine.errors import InvalidRequest, NotFound
from coalmine.inference import MODEL_INFER
from coalmine.shares import percent

STABLE: Final = "stable"
WHOLE_BP: Final = 10_000


@dataclass(frozen=True, slots=True)
class BackendTls:
    """PEM files for the connections to a backend, by name; empty ones are not given."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where variants are served: one address, or several. Without `tls`, in plaintext."""

    name: str
    targets: tuple[str, ...]
    tls: BackendTls | None = None
    token_file: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One named answerer of a route; an empty model or version is the one the caller sent."""

    name: str
    backend: str
    model: str = ""
    version: str = ""
    weight_bp: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """A share of requests that is copied to a variant, whose answers nobody gets."""

    variant: str
    share_bp: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in flight at a time; 0: no limit."""

    in_flight_max: int = 0
    bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a route answers: a model's, those of no other route, or another service's.

    Without `method`, all unary methods of `service`.
    """

    model: str = ""
    is_default: bool = False
    service: str = ""
    method: str = ""

    def __str__(self) -> str:
        if self.is_default:
            return "any other model"
        if self.service:
            return f"{self.service}/{self.method or '*'}"
        return f"model {self.model}"


@dataclass(frozen=True, slots=True)
class Sticky:
    """Where a request's sticky key is: a metadata key, a parameter, or its id. At most one."""

    metadata: str = ""
    parameter: str = ""
    id: bool = False

    def __bool__(self) -> bool:
        return bool(self.metadata or self.parameter or self.id)

    def __str__(self) -> str:
        if self.parameter:
            return f"parameter {self.parameter}"
        return "id" if self.id else self.metadata


@dataclass(frozen=True)
class Route:
    """What a route matches, with its policy. Raises InvalidRequest where its parts contradict."""

    name: str
    match: Match
    variants: tuple[Variant, ...]
    shadows: tuple[Shadow, ...] = ()
    sticky: Sticky = Sticky()
    timeout_ns: int = 30 * 10**9
    pinning: bool = True
    fallback: bool = False
    strict_version: bool = False
    limits: Limits = Limits()
    # Shares of stable's and others' requests that the other side, and stable itself, answer too.
    audit_bp: int = 0
    noise_bp: int = 0
    # Of another service, what may be copied; of models, ModelInfer may.
    copy_methods: tuple[str, ...] = ()
    stateful: bool = False

    def __post_init__(self) -> None:
        _check_route(self)

    @cached_property
    def by_name(self) -> Mapping[str, Variant]:
        """The variants by name."""
        return {variant.name: variant for variant in self.variants}

    @property
    def stable(self) -> Variant:
        """The variant that everything falls back to."""
        return self.by_name[STABLE]

    @property
    def weights_bp(self) -> dict[str, int]:
        """The weight of each variant; the sum is 10,000."""
        return {variant.name: variant.weight_bp for variant in self.variants}

    @property
    def shadows_bp(self) -> dict[str, int]:
        """The share of each shadow that is on."""
        return {shadow.variant: shadow.share_bp for shadow in self.shadows}

    @property
    def copies(self) -> bool:
        """Whether any request may be copied."""
        return bool(self.shadows or self.audit_bp or self.noise_bp)

    def may_copy(self, method: str) -> bool:
        """Return whether requests of a full method may be answered more than once."""
        if self.match.service:
            return method.rpartition("/")[2] in self.copy_methods
        return method == MODEL_INFER and not self.stateful

    def variant(self, name: str) -> Variant:
        """Return the variant of that name. Raises NotFound, naming those there are."""
        found = self.by_name.get(name)
        if found is None:
            known = ", ".join(self.by_name)
            raise NotFound(f"route '{self.name}' has no variant '{name}', only {known}")
        return found

    def with_weights(self, changed_bp: Mapping[str, int]) -> "Route":
        """Return the route with these weights.

        Variants that are not named keep theirs; stable, where it is not named, takes the remainder.
        Raises NotFound for an unknown variant, InvalidRequest where the sum isn't 100 %.
        """
        for name in changed_bp:
            self.variant(name)
        wanted = {**self.weights_bp, **changed_bp}
        if STABLE not in changed_bp:
            wanted[STABLE] = WHOLE_BP - sum(wanted.values()) + wanted[STABLE]
        if wanted[STABLE] < 0:
            over = percent(WHOLE_BP - wanted[STABLE])
            raise InvalidRequest(f"route '{self.name}': weights beside stable add up to {over}")
        variants = tuple(replace(each, weight_bp=wanted[each.name]) for each in self.variants)
        return replace(self, variants=variants)

    def with_shadow(self, variant: str, share_bp: int) -> "Route":
        """Return the route with this share copied to `variant`; 0 ends it. Raises NotFound."""
        self.variant(variant)
        wanted = {**self.shadows_bp, variant: share_bp}
        shadows = tuple(Shadow(name, share) for name, share in wanted.items() if share)
        return replace(self, shadows=shadows)


@dataclass(frozen=True)
class RouteTable:
    """One snapshot of all that a proxy needs. Raises InvalidRequest where its parts contradict."""

    revision: int
    backends: tuple[Backend, ...]
    routes: tuple[Route, ...]
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        _check_unique("backend", [backend.name for backend in self.backends])
        _check_unique("route", [route.name for route in self.routes])
        _check_unique("match:", [str(route.match) for route in self.routes])
        for backend in self.backends:
            if not backend.targets:
                raise InvalidRequest(f"backend '{backend.name}' has no targets")
        for route in self.routes:
            self._check_backends(route)

    def _check_backends(self, route: Route) -> None:
        for variant in route.variants:
            if variant.backend not in self.by_backend:
                raise InvalidRequest(
                    f"route '{route.name}': variant '{variant.name}' names backend "
                    f"'{variant.backend}', which does not exist"
                )

    @cached_property
    def by_backend(self) -> Mapping[str, Backend]:
        """The backends by name."""
        return {backend.name: backend for backend in self.backends}

    @cached_property
    def by_route(self) -> Mapping[str, Route]:
        """The routes by name."""
        return {route.name: route for route in self.routes}

    def route(self, name: str) -> Route:
        """Return the route of that name. Raises NotFound, naming those there are."""
        found = self.by_route.get(name)
        if found is None:
            raise NotFound(f"no route '{name}', only {', '.join(self.by_route)}")
        return found

    def replacing(self, route: Route) -> "RouteTable":
        """Return the next revision, with `route` in the place of the one of its name."""
        routes = tuple(route if each.name == route.name else each for each in self.routes)
        return replace(self, revision=self.revision + 1, routes=routes)


# ---------------------------------------------------------------- what must hold


def _check_route(route: Route) -> None:
    where = f"route '{route.name}'"
    _check_match(where, route.match)
    _check_unique(f"{where}: variant", [variant.name for variant in route.variants])
    if STABLE not in route.by_name:
        raise InvalidRequest(f"{where} has no variant '{STABLE}'")
    _check_weights(where, route)
    _check_copies(where, route)
    _check_sticky(where, route)
    if route.timeout_ns <= 0:
        raise InvalidRequest(f"{where}: the timeout is not above 0")


def _check_match(where: str, match: Match) -> None:
    if sum(map(bool, (match.model, match.is_default, match.service))) != 1:
        raise InvalidRequest(f"{where}: match names a model, default, or a service: one of them")
    if match.method and not match.service:
        raise InvalidRequest(f"{where}: match names a method and no service")


def _check_weights(where: str, route: Route) -> None:
    if any(not 0 <= variant.weight_bp <= WHOLE_BP for variant in route.variants):
        raise InvalidRequest(f"{where}: a weight lies outside 0 to 100%")
    total = sum(variant.weight_bp for variant in route.variants)
    if total != WHOLE_BP:
        raise InvalidRequest(f"{where}: weights add up to {percent(total)}, expected 100%")


def _check_copies(where: str, route: Route) -> None:
    _check_unique(f"{where}: shadow", [shadow.variant for shadow in route.shadows])
    for shadow in route.shadows:
        if shadow.variant not in route.by_name:
            raise InvalidRequest(f"{where}: shadow '{shadow.variant}' is no variant of it")
        if not 0 < shadow.share_bp <= WHOLE_BP:
            raise InvalidRequest(f"{where}: a shadow's share lies outside 0 to 100%")
    for name, share_bp in {"audit": route.audit_bp, "noise": route.noise_bp}.items():
        if not 0 <= share_bp <= WHOLE_BP:
            raise InvalidRequest(f"{where}: {name} lies outside 0 to 100%")
    _check_may_copy(where, route)


def _check_may_copy(where: str, route: Route) -> None:
    if route.copy_methods and not route.match.service:
        raise InvalidRequest(f"{where}: copy_methods are another service's; of models, it is infer")
    if not route.copies:
        return
    if route.stateful:
        raise InvalidRequest(f"{where} is stateful: its requests are never copied")
    if route.match.service and not route.copy_methods:
        raise InvalidRequest(
            f"{where}: nothing of {route.match.service} is copied: copy_methods names no method"
        )


def _check_sticky(where: str, route: Route) -> None:
    sticky = route.sticky
    if sum(map(bool, (sticky.metadata, sticky.parameter, sticky.id))) > 1:
        raise InvalidRequest(f"{where}: a sticky key is in metadata, a parameter or the id: in one")
    if route.match.service and (sticky.parameter or sticky.id):
        raise InvalidRequest(f"{where}: requests of another service are sticky by metadata alone")


def _check_unique(what: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise InvalidRequest(f"{what} '{twice[0]}' stands there twice")

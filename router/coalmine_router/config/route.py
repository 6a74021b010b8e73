"""A route of router.yaml."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from coalmine.errors import StartError
from coalmine.process.config_file import Duration, Percent, Size, Strict
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.config.copies_section import (
    NO_COPIES,
    Capture,
    CopiesConfig,
    KeptConfig,
    SegmentConfig,
)
from coalmine_router.config.gates_section import GatesConfig
from coalmine_router.config.names import MetadataKey, MethodName, Name, ServiceName
from coalmine_router.table import (
    STABLE,
    WHOLE_BP,
    Limits,
    Match,
    Route,
    Shadow,
    Sticky,
    Variant,
)

_TIMEOUT_NS_MAX: Final = 24 * 3_600 * 10**9


class MatchConfig(Strict):
    """Which requests a route answers: a model's, those of no other route, or another service's."""

    model: Name | None = None
    default: bool = False
    service: ServiceName | None = None
    method: MethodName | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(map(bool, (self.model, self.default, self.service))) != 1:
            raise ValueError("expected one of model, default: true, and service")
        if self.method and not self.service:
            raise ValueError("a method goes with its service")
        return self

    def match(self) -> Match:
        """Return the match as the table holds it."""
        return Match(self.model or "", self.default, self.service or "", self.method or "")


class VariantConfig(Strict):
    """Where a variant is served; model and version default to what the caller sent."""

    backend: Name
    model: Name | Literal[""] = ""
    version: str = Field(default="", max_length=128)


class StickyConfig(Strict):
    """Which part of a request is its sticky key."""

    metadata: MetadataKey | None = None
    parameter: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    id: bool = False

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(map(bool, (self.metadata, self.parameter, self.id))) != 1:
            raise ValueError("expected one of metadata, parameter, and id: true")
        return self

    def sticky(self) -> Sticky:
        """Return the sticky key's place as the table holds it."""
        return Sticky(self.metadata or "", self.parameter or "", self.id)


class LimitsConfig(Strict):
    """How many requests and bytes may be in flight on each proxy; 0 and 0MiB: no limit."""

    in_flight: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    bytes: Size = 0

    def limits(self) -> Limits:
        """Return the limits as the table holds them."""
        return Limits(self.in_flight, self.bytes)


class RouteConfig(Strict):
    """A route. Its weights and shadows hold until an operator changes them."""

    name: Name
    match: MatchConfig
    variants: Annotated[dict[Name, VariantConfig], Field(min_length=1, max_length=32)]
    weights: dict[Name, Percent] = Field(default={STABLE: WHOLE_BP})
    shadows: dict[Name, CopiesConfig] = Field(default={})
    audit: CopiesConfig = NO_COPIES
    noise: CopiesConfig = NO_COPIES
    copy_methods: Annotated[tuple[MethodName, ...], Field(max_length=64)] = ()
    stateful: bool = False
    segment: SegmentConfig | None = None
    sensitive: bool = False
    kept: KeptConfig = KeptConfig()
    sticky: StickyConfig | None = None
    pinning: bool = True
    fallback: bool = False
    strict_version: bool = False
    timeout: Annotated[Duration, Field(gt=0, le=_TIMEOUT_NS_MAX)] = 30 * 10**9
    limits: LimitsConfig = LimitsConfig()
    compare: CompareConfig = CompareConfig()
    gates: GatesConfig = GatesConfig()

    def route(self) -> Route:
        """Return the route. Raises CoalmineError where its parts contradict."""
        self._check()
        return Route(
            name=self.name,
            match=self.match.match(),
            variants=tuple(
                Variant(name, each.backend, each.model, each.version, self.weights.get(name, 0))
                for name, each in self.variants.items()
            ),
            shadows=tuple(
                Shadow(name, each.share) for name, each in self.shadows.items() if each.share
            ),
            sticky=self.sticky.sticky() if self.sticky else Sticky(),
            timeout_ns=self.timeout,
            pinning=self.pinning,
            fallback=self.fallback,
            strict_version=self.strict_version,
            limits=self.limits.limits(),
            audit_bp=self.audit.share,
            noise_bp=self.noise.share,
            copy_methods=self.copy_methods,
            stateful=self.stateful,
        )

    @property
    def capture(self) -> Capture:
        """How much of a mismatch is kept."""
        return self.kept.capture or ("shapes" if self.sensitive else "full")

    def _check(self) -> None:
        unknown = [name for name in self.weights if name not in self.variants]
        if unknown:
            raise StartError(f"route '{self.name}': weights name '{unknown[0]}', no such variant")
        renamed = [name for name, each in self.variants.items() if each.model or each.version]
        if self.match.service and renamed:
            raise StartError(
                f"route '{self.name}': variant '{renamed[0]}': requests of another service have "
                "no model and no version to set"
            )

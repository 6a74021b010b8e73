"""router.yaml: pydantic at the edge, frozen values inside."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from coalmine.addresses import split_address
from coalmine.config_file import Duration, Percent, Strict, load
from coalmine.errors import CoalmineError, StartError
from coalmine_router.table import STABLE, WHOLE_BP, Backend, Route, RouteTable, Shadow, Variant

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=128)]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]+$", max_length=128)]

_TIMEOUT_NS_MAX: Final = 24 * 3_600 * 10**9


class ControlConfig(Strict):
    """The control process."""

    listen: str = "127.0.0.1:9002"
    state: Path = Path("./state")


class BackendConfig(Strict):
    """A backend's addresses, as gRPC targets."""

    targets: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]


class MatchConfig(Strict):
    """Which requests a route answers."""

    model: Name


class VariantConfig(Strict):
    """Where a variant is served; model and version default to what the caller sent."""

    backend: Name
    model: Name | Literal[""] = ""
    version: str = Field(default="", max_length=128)


class CloseRule(Strict):
    """Equal within tolerances; unset ones depend on the datatype."""

    rule: Literal["close"] = "close"
    rtol: float | None = Field(default=None, ge=0)
    atol: float | None = Field(default=None, ge=0)


class ExactRule(Strict):
    """Equal to the bit, NaN to NaN."""

    rule: Literal["exact"]


class IgnoreRule(Strict):
    """Not looked at: ignored is not matched."""

    rule: Literal["ignore"]


RuleConfig = Annotated[CloseRule | ExactRule | IgnoreRule, Field(discriminator="rule")]


class CompareConfig(Strict):
    """How answers are compared, output by output."""

    default: RuleConfig = CloseRule()
    outputs: dict[str, RuleConfig] = Field(default={})


class SlowGate(Strict):
    """What counts as slow."""

    over: Duration


class GatesConfig(Strict):
    """What is noticed about a request."""

    slow: SlowGate | None = None


class StickyConfig(Strict):
    """Where a request's sticky key is found."""

    metadata: MetadataKey


class RouteConfig(Strict):
    """A route as the file gives it: weights and shadows hold until somebody changes them."""

    name: Name
    match: MatchConfig
    variants: Annotated[dict[Name, VariantConfig], Field(min_length=1, max_length=32)]
    weights: dict[Name, Percent] = Field(default={STABLE: WHOLE_BP})
    shadows: dict[Name, Percent] = Field(default={})
    sticky: StickyConfig | None = None
    pinning: bool = True
    timeout: Annotated[Duration, Field(gt=0, le=_TIMEOUT_NS_MAX)] = 30 * 10**9
    compare: CompareConfig = CompareConfig()
    gates: GatesConfig = GatesConfig()

    def route(self) -> Route:
        """Return the route. Raises CoalmineError where its parts contradict."""
        unknown = [name for name in self.weights if name not in self.variants]
        if unknown:
            raise StartError(f"route '{self.name}': weights name '{unknown[0]}', no such variant")
        return Route(
            name=self.name,
            model=self.match.model,
            variants=tuple(
                Variant(name, each.backend, each.model, each.version, self.weights.get(name, 0))
                for name, each in self.variants.items()
            ),
            shadows=tuple(Shadow(name, share) for name, share in self.shadows.items() if share),
            sticky_metadata=self.sticky.metadata if self.sticky else "",
            timeout_ns=self.timeout,
            pinning=self.pinning,
        )


class RouterConfig(Strict):
    """The whole file."""

    listen: str = "127.0.0.1:9001"
    control: ControlConfig = ControlConfig()
    http: str = "127.0.0.1:9003"
    backends: Annotated[dict[Name, BackendConfig], Field(min_length=1)]
    routes: Annotated[list[RouteConfig], Field(min_length=1)]

    def table(self) -> RouteTable:
        """Return the table of revision 0 that the file describes. Raises CoalmineError."""
        return RouteTable(
            revision=0,
            backends=tuple(Backend(name, each.targets) for name, each in self.backends.items()),
            routes=tuple(route.route() for route in self.routes),
        )


def read(path: Path) -> RouterConfig:
    """Return the file's content, checked as a whole. Raises StartError, in one line."""
    config = load(path, RouterConfig)
    for address in (config.listen, config.control.listen, config.http):
        split_address(address)
    try:
        config.table()
    except (CoalmineError, StartError) as error:
        raise StartError(f"{path}: {error}") from None
    return config

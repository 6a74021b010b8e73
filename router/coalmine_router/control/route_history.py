"""The history of routes: what changed, who did it, when and why. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.snapshot import backend_message, route_message
from coalmine_router.table import Route, RouteTable

Action = Literal["configured", "weights", "shadow"]

# In the place of a route's definition, once the configuration no longer has the route.
LEFT: Final = ""


@dataclass(frozen=True, slots=True)
class Split:
    """How a route's requests are shared out, in hundredths of a percent."""

    weights_bp: Mapping[str, int] = field(default_factory=dict)
    shadows_bp: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, route: Route) -> "Split":
        """Return the route's split."""
        return cls(route.weights_bp, route.shadows_bp)

    @classmethod
    def from_json(cls, text: str) -> "Split":
        """Return the split that `to_json` wrote. Raises ValueError for any other text."""
        match json.loads(text):
            case {"weights_bp": dict(weights), "shadows_bp": dict(shadows)} if all(
                type(share) is int for share in (*weights.values(), *shadows.values())
            ):
                return cls(weights, shadows)
        raise ValueError(f"not a split: {text[:80]}")

    def to_json(self) -> str:
        """Return the split as text."""
        return json.dumps(
            {"weights_bp": dict(self.weights_bp), "shadows_bp": dict(self.shadows_bp)}
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a route's history; the newest one is the route's state."""

    revision: int
    route: str
    at_ns: int
    actor: str
    reason: str
    action: Action
    before: Split
    after: Split
    # What the configuration alone says of the route, as a digest.
    definition: str


def definition_of(table: RouteTable, route: Route) -> str:
    """Return a digest of what only the configuration changes: everything but weights and shadows.

    Equal digests mean that one revision number can stand for both.
    """
    bare = route_message(route)
    bare.ClearField("shadows")
    for variant in bare.variants:
        variant.ClearField("weight_bp")
    used = sorted({variant.backend for variant in route.variants})
    backends = [backend_message(table.by_backend[name]) for name in used]
    whole = pb.RouteTable(backends=backends, routes=[bare])
    return hashlib.blake2b(whole.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def change_message(change: Change) -> pb.Change:
    """Return the change as operators read it."""
    return pb.Change(
        revision=change.revision,
        route=change.route,
        at_ns=change.at_ns,
        actor=change.actor,
        reason=change.reason,
        action=change.action,
        before=_split_message(change.before),
        after=_split_message(change.after),
    )


def _split_message(split: Split) -> pb.Split:
    return pb.Split(weights_bp=split.weights_bp, shadows_bp=split.shadows_bp)

"""What a wished change makes of the table, and which variants must be ready for it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from coalmine.errors import StaleRevision
from coalmine_router.control.route_history import Action, Change, Split, definition_of
from coalmine_router.table import STABLE, Route, RouteTable

ANY_REVISION: Final = 0


@dataclass(frozen=True, slots=True)
class WishedWeights:
    """Weights to set; variants that are not named keep theirs, stable takes the remainder."""

    weights_bp: Mapping[str, int]
    action: ClassVar[Action] = "weights"

    def route_after(self, route: Route) -> Route:
        """Return the route with these weights. Raises NotFound or InvalidRequest."""
        return route.with_weights(self.weights_bp)


@dataclass(frozen=True, slots=True)
class ShadowShare:
    """A share of requests to copy to a variant; 0 ends it."""

    variant: str
    share_bp: int
    action: ClassVar[Action] = "shadow"

    def route_after(self, route: Route) -> Route:
        """Return the route with this share. Raises NotFound or InvalidRequest."""
        return route.with_shadow(self.variant, self.share_bp)


@dataclass(frozen=True, slots=True)
class Wish:
    """A change that somebody asks for."""

    route: str
    edit: WishedWeights | ShadowShare
    actor: str
    reason: str = ""
    expect_revision: int = ANY_REVISION


@dataclass(frozen=True, slots=True)
class Plan:
    """A wish, applied to one table."""

    wish: Wish
    before: RouteTable
    after: RouteTable
    # Variants that get a larger share, of answers or of copies, than they have.
    gaining: frozenset[str]

    @property
    def is_unchanged(self) -> bool:
        """Whether the table already is as wished."""
        return self.after is self.before

    def change(self, at_ns: int) -> Change:
        """Return what the history says of it."""
        route = self.after.route(self.wish.route)
        return Change(
            revision=self.after.revision,
            route=route.name,
            at_ns=at_ns,
            actor=self.wish.actor,
            reason=self.wish.reason,
            action=self.wish.edit.action,
            before=Split.of(self.before.route(route.name)),
            after=Split.of(route),
            definition=definition_of(self.after, route),
        )


def plan(table: RouteTable, wish: Wish) -> Plan:
    """Return what the wish makes of the table.

    Raises NotFound for an unknown route or variant, StaleRevision where the caller looked at
    another table, InvalidRequest where the shares don't add up.
    """
    before = table.route(wish.route)
    if wish.expect_revision not in {ANY_REVISION, table.revision}:
        raise StaleRevision(
            f"route '{wish.route}' is at revision {table.revision}, not {wish.expect_revision}"
        )
    after = wish.edit.route_after(before)
    next_table = table if after == before else table.replacing(after)
    return Plan(wish, table, next_table, _gaining_variants(before, after))


def _gaining_variants(before: Route, after: Route) -> frozenset[str]:
    # Stable's weight is the remainder: were it checked, a broken stable could forbid an abort.
    weights = {
        name
        for name, weight in after.weights_bp.items()
        if name != STABLE and weight > before.weights_bp[name]
    }
    shadows = {
        name for name, share in after.shadows_bp.items() if share > before.shadows_bp.get(name, 0)
    }
    return frozenset(weights | shadows)

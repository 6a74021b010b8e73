"""Decides which copies a request gets. Pure but for chance, handed in.

One draw decides on all copies. A request drawn for a smaller share is also drawn for the larger
ones. So variants that are compared with each other get the same requests as often as possible.
"""

from typing import Final, NamedTuple

from coalmine_router.proxy.block import Block, Chance
from coalmine_router.table import STABLE, WHOLE_BP, Route, Variant

_AUDIT: Final = "audit"
_NOISE: Final = "noise"


class CopyPlan(NamedTuple):
    """The copies of one request: shadows, the variant of an audit or "", and noise."""

    shadows: tuple[str, ...] = ()
    audit: str = ""
    noise: bool = False

    @property
    def has_any(self) -> bool:
        """Whether there is any copy."""
        return bool(self.shadows or self.audit or self.noise)

    def when_stable_answers(self) -> "CopyPlan":
        """Return the copies that are left when stable stands in for the chosen variant."""
        return CopyPlan(tuple(name for name in self.shadows if name != STABLE), "", noise=False)


NO_COPIES: Final = CopyPlan()


class CopyDraw:
    """Draws the copies of one route's requests, as long as its policy stays the same."""

    def __init__(self, route: Route, chance: Chance) -> None:
        shares = [
            *(("", shadow.variant, shadow.share_bp) for shadow in route.shadows),
            (_AUDIT, "", route.audit_bp),
            (_NOISE, "", route.noise_bp),
        ]
        edges = sorted({share for *_, share in shares if share} | {WHOLE_BP})
        self._drawn = [
            [(role, name) for role, name, share in shares if share >= edge] for edge in edges
        ]
        widths = [edge - below for below, edge in zip([0, *edges], edges, strict=False)]
        self._block = Block(widths, chance)
        self._others = [each.name for each in route.variants if _is_weighted_candidate(each)]
        self._other = Block([1] * len(self._others), chance) if self._others else None

    def draw(self, answering: Variant, *, is_split: bool) -> CopyPlan:
        """Draw the copies of a request. No variant gets a copy of a request that it answers itself.

        An audit of a split request goes to the other side of the split: from another variant to
        stable, from stable to the others with weight, in turn. A variant that gets the request as
        a shadow gets no audit. Only stable gets noise.
        """
        drawn = self._drawn[self._block.draw()]
        if not drawn:
            return NO_COPIES
        is_stable = answering.name == STABLE
        shadows = [name for role, name in drawn if not role and name != answering.name]
        audit = self._draw_other_side(is_stable) if is_split and (_AUDIT, "") in drawn else ""
        # Two answers of one variant to one request would count as two requests.
        audit = "" if audit in shadows else audit
        return CopyPlan(tuple(shadows), audit, noise=is_stable and (_NOISE, "") in drawn)

    def _draw_other_side(self, is_stable: bool) -> str:  # noqa: FBT001 - the one thing it is about
        if not is_stable:
            return STABLE
        return self._others[self._other.draw()] if self._other else ""


def _is_weighted_candidate(variant: Variant) -> bool:
    return variant.name != STABLE and variant.weight_bp > 0

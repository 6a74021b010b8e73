"""Which variant answers a request. Pure but for chance, handed in.

A sticky key has its point in [0, 10000), and each variant its range of them: the first beside
stable from 0 upwards, the second from 10000 downwards, the third after the first, and so on;
stable has what is left between. So with up to two variants beside stable, whoever is in one that
grows stays in it, and nobody of the other moves. From the third on, a variant begins where the one
before it on its side ends, and its keys may move when that one's weight changes.
"""

from hashlib import blake2b

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.proxy.block import Block, Chance
from coalmine_router.proxy.copy_plan import CopyDraw
from coalmine_router.table import STABLE, WHOLE_BP, Route, Variant


class Assigner:
    """The choices of one route, for as long as its policy stays the same."""

    def __init__(self, route: Route, chance: Chance) -> None:
        self.route = route
        self._variants = route.variants
        self._ranges = sticky_ranges(route)
        self._split = Block([variant.weight_bp for variant in route.variants], chance)
        # None: nothing is ever copied.
        self.copying = CopyDraw(route, chance) if route.copies else None

    def assign(
        self, pin: str | None, sticky_key: str | None
    ) -> "tuple[Variant, pb.Assignment.ValueType]":
        """Return the variant that answers, and why. An empty sticky key is none.

        Raises InvalidRequest for a pin that the route doesn't allow, NotFound for one to a variant
        that doesn't exist.
        """
        if pin is not None:
            return self.pinned_variant(pin), pb.ASSIGNMENT_PINNED
        if sticky_key:
            return self._sticky_variant(sticky_key), pb.ASSIGNMENT_STICKY
        return self._variants[self._split.draw()], pb.ASSIGNMENT_SPLIT

    def pinned_variant(self, name: str) -> Variant:
        """Return the variant of that name, where callers may choose. Raises as `assign`."""
        if not self.route.pinning:
            raise InvalidRequest(f"route '{self.route.name}' does not allow a variant to be pinned")
        return self.route.variant(name)

    def _sticky_variant(self, key: str) -> Variant:
        point = sticky_point(self.route.name, key)
        for begin, end, variant in self._ranges:
            if begin <= point < end:
                return variant
        return self.route.stable


def sticky_ranges(route: Route) -> list[tuple[int, int, Variant]]:
    """Return which points [begin, end) are whose; all others are stable's."""
    ranges = []
    low, high = 0, WHOLE_BP
    for place, variant in enumerate(each for each in route.variants if each.name != STABLE):
        if place % 2 == 0:
            begin, end = low, low + variant.weight_bp
            low = end
        else:
            begin, end = high - variant.weight_bp, high
            high = begin
        if begin < end:
            ranges.append((begin, end, variant))
    return ranges


def sticky_point(route: str, key: str) -> int:
    """Return the point in [0, 10000) of a sticky key; other routes place the same key elsewhere."""
    digest = blake2b(f"{route}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE_BP

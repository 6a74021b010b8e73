"""Which variant answers a request. Pure but for chance, handed in.

A sticky key has a point in [0, 10000), and each variant has a range of points. The first variant
beside stable takes points from 0 upwards, the second from 10000 downwards, the third after the
first, and so on. Stable has the rest between them. So with up to two variants beside stable, a key
stays in a variant that grows, and no key of the other moves. From the third on, a variant begins
where the one before it on its side ends. Its keys may move when that one's weight changes.
"""

from hashlib import blake2b

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.proxy.block import Block, Chance
from coalmine_router.proxy.copy_plan import CopyDraw
from coalmine_router.table import STABLE, WHOLE_BP, Route, Variant


class Assigner:
    """Makes the choices of one route, as long as its policy stays the same."""

    def __init__(self, route: Route, chance: Chance) -> None:
        self.route = route
        self._variants = route.variants
        self._ranges = sticky_ranges(route)
        self._split = Block([variant.weight_bp for variant in route.variants], chance)
        # None: the route has no copies.
        self.copying = CopyDraw(route, chance) if route.copies else None

    def assign(
        self, pin: str | None, sticky_key: str | None
    ) -> "tuple[Variant, pb.Assignment.ValueType]":
        """Choose the variant that answers, with the reason. An empty sticky key counts as none.

        Raises InvalidRequest where the route allows no pin, NotFound where it has no such variant.
        """
        if pin is not None:
            return self.pinned_variant(pin), pb.ASSIGNMENT_PINNED
        if sticky_key:
            return self._sticky_variant(sticky_key), pb.ASSIGNMENT_STICKY
        return self._variants[self._split.draw()], pb.ASSIGNMENT_SPLIT

    def pinned_variant(self, name: str) -> Variant:
        """Return the variant of that name. Raises as `assign`."""
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
    """Return the range of points [begin, end) of each variant. All other points are stable's."""
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
    """Return the point of a sticky key in [0, 10000). Other routes place the same key elsewhere."""
    digest = blake2b(f"{route}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE_BP

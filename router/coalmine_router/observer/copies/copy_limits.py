"""Bounds of what is copied: those of the house, and those that a route's file sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.config.copies_section import CopiesConfig
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.observed_request import Copy

CopySettings = Callable[[str, Copy], CopiesConfig]

# Of a copy that only an operator's command has switched on; the table says how much is drawn.
_UNSAID: Final = CopiesConfig(share=0)
# Nobody's answer depends on a copy: an address is tried again sooner than by proxies.
EJECTION: Final = EjectionRules(first_ns=10**9, longest_ns=30 * 10**9)


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """Of each queue: how many copies wait, how long, and their bytes with those under way.

    `room_bytes_max` is of all queues together.
    """

    queue_copies_max: int = 1_024
    bytes_max: int = 64 * 1024 * 1024
    room_bytes_max: int = 512 * 1024 * 1024
    # A trace is written when the last of its copies is done: none may wait for ever.
    wait_ns_max: int = 30 * 10**9
    # Of an answer: a candidate may answer more than it was sent.
    answer_bytes_max: int = 16 * 1024 * 1024


def settings_by_copy(routes: Mapping[str, RouteConfig]) -> CopySettings:
    """Return how the file's routes are looked up: by the route's name and the copy."""

    def settings(route: str, copy: Copy) -> CopiesConfig:
        found = routes.get(route)
        if found is None:
            return _UNSAID
        if copy.role == "shadow":
            return found.shadows.get(copy.variant, _UNSAID)
        return found.audit if copy.role == "audit" else found.noise

    return settings

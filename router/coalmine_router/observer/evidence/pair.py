"""Whose answers are compared. Values only."""

from typing import Final, NamedTuple

PAIRS_MAX: Final = 1_024


class Pair(NamedTuple):
    """A candidate beside its reference, on one route."""

    route: str
    reference: str
    candidate: str

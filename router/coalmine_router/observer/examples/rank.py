"""Which examples are kept, and which of those are the most valuable. Pure.

An example is kept while it is among the newest of its group (route, candidate and kind), or among
the worst by its measure (severity.py). An example that was pushed out would be pushed out again. So
the choice depends on which examples came, and not on when it is made.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from math import inf
from typing import NamedTuple

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.observer.examples.severity import largest_difference, severity_of

Group = tuple[str, str, str]


class Rank(NamedTuple):
    """What an example is chosen by. The `number` is its place in the order of arrival."""

    number: int
    group: Group
    measure: str
    badness: float
    rows_mismatch: int
    max_abs_diff: float


def rank_of(number: int, record: pb.Mismatch) -> Rank:
    """Return the rank of a record."""
    group = record.route, record.candidate, record.kind
    measure, badness = severity_of(record)
    return Rank(number, group, measure, badness, record.rows_mismatch, largest_difference(record))


def numbers_by_value(ranks: Iterable[Rank], kept: KeptConfig) -> list[int]:
    """Return the numbers of the examples that are kept, the most valuable first.

    The newest of each group and the worst of each measure come first, then the second newest and
    the second worst of each, down to the number that `kept` allows.
    """
    newest_first = sorted(ranks, key=lambda each: -each.number)
    newest = _places(newest_first, lambda each: each.group, kept.newest)
    worst_first = sorted(newest_first, key=_badness_order)
    worst = _places(worst_first, lambda each: (each.group, each.measure), kept.worst)

    def value_order(number: int) -> tuple[float, float, int]:
        place = worst.get(number, inf)
        return min(place, newest.get(number, inf)), place, number

    return sorted(newest.keys() | worst.keys(), key=value_order)


def _badness_order(rank: Rank) -> tuple[float, int, float, int]:
    # The same order as severity.PLACE.
    return -rank.badness, -rank.rows_mismatch, -rank.max_abs_diff, rank.number


def _places(ordered: Sequence[Rank], kind: Callable[[Rank], Hashable], last: int) -> dict[int, int]:
    """Return by number the place of each among those of its kind, up to place `last`."""
    places: dict[int, int] = {}
    passed: Counter[Hashable] = Counter()
    for each in ordered:
        passed[kind(each)] += 1
        if passed[kind(each)] <= last:
            places[each.number] = passed[kind(each)]
    return places

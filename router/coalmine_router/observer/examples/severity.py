"""Which kept examples are worse than others.

Where the rule has a measure of its own, an example is as bad as its worst row by that measure.
Other examples are ordered by how many rows differ, and then by their largest difference. Measures
of different rules can't be compared. So the worst of each measure come first, then the second
worst of each.
"""

import sqlite3
from math import inf, isnan
from typing import Final

from coalmine.control.v1 import control_pb2 as pb

RANKED: Final = "mismatch JOIN mismatch_rank USING (sequence)"
# The worst by each measure has place 1.
PLACE: Final = """ROW_NUMBER() OVER (
  PARTITION BY measure ORDER BY badness DESC, rows_mismatch DESC, max_abs_diff DESC, sequence)"""
WORST_FIRST: Final = f"{PLACE}, rows_mismatch DESC, max_abs_diff DESC, sequence"

_RANK: Final = "INSERT INTO mismatch_rank (sequence, measure, badness) VALUES (?,?,?)"
# Records of older files have a score and no badness. Of a distance more is worse, of a similarity
# less. A new rule has a badness, and needs no entry here.
_DISTANCES: Final = frozenset({"argmax", "distribution", "relative"})
_SIMILARITIES: Final = frozenset({"cosine", "top_k"})


def write_rank(database: sqlite3.Connection, sequence: int | None, record: pb.Mismatch) -> None:
    """Write the severity of a record, within the caller's transaction."""
    database.execute(_RANK, (sequence, *severity_of(record)))


def severity_of(record: pb.Mismatch) -> tuple[str, float]:
    """Return the rule that measures how bad a record is, and how bad: more is worse.

    It is the rule of the first difference, which gives the record its kind; "" and 0 where that
    rule has no measure.
    """
    if not record.differences or _badness_of(record.differences[0]) is None:
        return "", 0.0
    rule = record.differences[0].rule
    measured = (_badness_of(each) for each in record.differences if each.rule == rule)
    return rule, max(each for each in measured if each is not None)


def largest_difference(record: pb.Mismatch) -> float:
    """Return the largest absolute difference of any output."""
    return max((_orderable(each.max_abs_diff) for each in record.differences), default=0.0)


def _badness_of(of: pb.Difference) -> float | None:
    if of.HasField("badness"):
        return _orderable(of.badness)
    if not of.HasField("score"):
        return None
    if of.rule in _SIMILARITIES:
        return 1.0 - of.score
    return of.score if of.rule in _DISTANCES else None


def _orderable(value: float) -> float:
    # SQLite has no NaN; NaN is the worst.
    return inf if isnan(value) else value

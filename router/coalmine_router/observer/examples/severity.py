"""Which kept examples are worse than others.

Where a rule has a measure of its own (cosine, argmax, top_k, distribution, relative, and rules of
one's own), an example is as bad as that measure says of its worst row. Others are as bad as they
have rows that differ, and of equals as bad as their largest difference. Measures of different rules
can't be compared: so the worst of each measure come first, then the second worst of each.
"""

import sqlite3
from math import inf, isnan
from typing import Final

from coalmine.control.v1 import control_pb2 as pb

RANKED: Final = "mismatch JOIN mismatch_rank USING (sequence)"
# Of each measure, the worst has place 1.
PLACE: Final = """ROW_NUMBER() OVER (
  PARTITION BY measure ORDER BY badness DESC, rows_mismatch DESC, max_abs_diff DESC, sequence)"""
WORST_FIRST: Final = f"{PLACE}, rows_mismatch DESC, max_abs_diff DESC, sequence"

_RANK: Final = "INSERT INTO mismatch_rank (sequence, measure, badness) VALUES (?,?,?)"
# Of these the more the worse; of a similarity, the less. Records of older files have scores alone.
_DISTANCES: Final = frozenset({"argmax", "distribution", "relative"})
_SIMILARITIES: Final = frozenset({"cosine", "top_k"})


def write_rank(database: sqlite3.Connection, sequence: int | None, record: pb.Mismatch) -> None:
    """Write how bad the record of a sequence is, within the caller's transaction."""
    database.execute(_RANK, (sequence, *severity_of(record)))


def severity_of(record: pb.Mismatch) -> tuple[str, float]:
    """Return the rule whose measure says how bad a record is, and how bad: more is worse.

    It is the rule of the first difference, which names the record's kind; "" and 0 where that has
    no measure.
    """
    if not record.differences or _badness(record.differences[0]) is None:
        return "", 0.0
    rule = record.differences[0].rule
    measured = (_badness(each) for each in record.differences if each.rule == rule)
    return rule, max(each for each in measured if each is not None)


def largest_difference(record: pb.Mismatch) -> float:
    """Return the largest absolute difference of any output."""
    return max((_ordered(each.max_abs_diff) for each in record.differences), default=0.0)


def _badness(of: pb.Difference) -> float | None:
    if of.HasField("badness"):
        return _ordered(of.badness)
    if not of.HasField("score"):
        return None
    if of.rule in _SIMILARITIES:
        return 1.0 - of.score
    return of.score if of.rule in _DISTANCES else None


def _ordered(value: float) -> float:
    # SQLite has no NaN, and nothing is further off.
    return inf if isnan(value) else value

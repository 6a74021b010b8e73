"""Writes and prunes the file: the examples that are kept (rank.py), within age and size."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.observer.examples.rank import Group, Rank, numbers_by_value, rank_of
from coalmine_router.observer.examples.redaction import CAPTURES, KeepSettings, Policy, may_stay
from coalmine_router.observer.examples.severity import RANKED, largest_difference, write_rank

_INT64_MAX: Final = 2**63 - 1
_BODIES: Final = ("request", "reference_response", "candidate_response")
# For a route that the file no longer has, until its rows expire.
_DEFAULT: Final = KeptConfig()

_INSERT: Final = """
INSERT INTO mismatch (sequence, id, route, candidate, kind, rows_mismatch, max_abs_diff,
  at_ns, expires_ns, policy, facts, bodies) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)
"""
_INSERT_OUTPUT: Final = "INSERT INTO mismatch_output (sequence, output) VALUES (?,?)"
_RANKS: Final = f"""
SELECT sequence, measure, badness, rows_mismatch, max_abs_diff FROM {RANKED}
WHERE route = ? AND candidate = ? AND kind = ?
"""  # noqa: S608 - constants
_DELETE: Final = "DELETE FROM mismatch WHERE sequence = ?"
_GROUPS: Final = "SELECT DISTINCT route, candidate, kind FROM mismatch WHERE route = ?"
_EXPIRE: Final = "DELETE FROM mismatch WHERE expires_ns <= ?"
_REDATE: Final = (
    "UPDATE mismatch SET expires_ns = at_ns + ?1 WHERE route = ?2 AND expires_ns != at_ns + ?1"
)
_POLICIES: Final = "SELECT DISTINCT policy FROM mismatch WHERE route = ?"
_FORGET: Final = "DELETE FROM mismatch WHERE route = ? AND policy = ?"
_OLDEST: Final = "SELECT sequence, length(facts) + length(bodies) FROM mismatch ORDER BY sequence"

_LAST_SEQUENCE: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'mismatch'"


class NumberedRecord(NamedTuple):
    """A record, and its place in the order of arrival."""

    sequence: int
    record: pb.Mismatch


Routes = Mapping[str, KeepSettings]


class WriteResult(NamedTuple):
    """How many records a write kept, and removed for their size."""

    kept: int
    removed_size: int


def write(
    database: sqlite3.Connection, records: Sequence[NumberedRecord], routes: Routes, bytes_max: int
) -> WriteResult:
    """Insert the records that are kept, and delete those that they push out.

    Runs within the caller's transaction. The deletion comes first, so that the new records reuse
    its pages, and each page is written once.
    """
    coming: dict[Group, list[Rank]] = {}
    for each in records:
        rank = rank_of(*each)
        coming.setdefault(rank.group, []).append(rank)
    numbers = {n for group in coming for n in _prune_group(database, group, coming[group], routes)}
    kept = [each for each in records if each.sequence in numbers]
    size = sum(each.record.ByteSize() for each in kept)
    removed = shrink(database, bytes_max - size)
    insert(database, kept, routes)
    return WriteResult(len(kept), removed)


def insert(database: sqlite3.Connection, records: Iterable[NumberedRecord], routes: Routes) -> None:
    """Write records, within the caller's transaction."""
    for sequence, record in sorted(records, key=lambda each: each.sequence):
        database.execute(_INSERT, (sequence, *_record_row(record, routes)))
        write_rank(database, sequence, record)
        outputs = {each.output for each in record.differences}
        database.executemany(_INSERT_OUTPUT, [(sequence, output) for output in outputs])


def _record_row(record: pb.Mismatch, routes: Routes) -> tuple[object, ...]:
    at_ns = min(record.at_ns, _INT64_MAX)
    max_age_ns = kept_config_of(record.route, routes).max_age
    return (
        record.id,
        record.route,
        record.candidate,
        record.kind,
        min(record.rows_mismatch, _INT64_MAX),
        largest_difference(record),
        at_ns,
        min(at_ns + max_age_ns, _INT64_MAX),
        _policy_text(record.capture, routes.get(record.route)),
        *_facts_and_bodies(record),
    )


def _facts_and_bodies(record: pb.Mismatch) -> tuple[bytes, bytes]:
    """Return the record without its bodies, and these alone: one after the other, the record."""
    facts, bodies = pb.Mismatch(), pb.Mismatch()
    facts.CopyFrom(record)
    for name in _BODIES:
        setattr(bodies, name, getattr(record, name))
        facts.ClearField(name)
    return facts.SerializeToString(), bodies.SerializeToString()


def kept_config_of(route: str, routes: Routes) -> KeptConfig:
    """Return a route's settings; the defaults for a route that the file lacks."""
    return routes[route].kept if route in routes else _DEFAULT


# ---------------------------------------------------------------- deletion


def _prune_group(
    database: sqlite3.Connection, group: Group, coming: Sequence[Rank], routes: Routes
) -> Sequence[int]:
    """Delete what is neither among the newest of its group nor among the worst.

    Return the sequences of the records that are kept, old and new.
    """
    there = [Rank(sequence, group, *rest) for sequence, *rest in database.execute(_RANKS, group)]
    stays = numbers_by_value([*there, *coming], kept_config_of(group[0], routes))
    gone = {each.number for each in there}.difference(stays)
    database.executemany(_DELETE, [(sequence,) for sequence in gone])
    return stays


def delete_expired(database: sqlite3.Connection, now_ns: int) -> int:
    """Delete expired records; return how many."""
    return database.execute(_EXPIRE, (now_ns,)).rowcount


def shrink(database: sqlite3.Connection, bytes_max: int) -> int:
    """Delete the oldest records until at most `bytes_max` are in use; return how many."""
    removed = 0
    while (excess := _bytes_used(database) - bytes_max) > 0:
        last = _last_sequence_within(database.execute(_OLDEST), excess)
        if last is None:
            break
        removed += database.execute("DELETE FROM mismatch WHERE sequence <= ?", (last,)).rowcount
    return removed


def free_bytes(database: sqlite3.Connection) -> int:
    """Return the size of the file's free pages; deleted records add to it."""
    free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
    )
    return int(free * size)


def last_sequence(database: sqlite3.Connection) -> int:
    """Return the highest sequence that the file has ever had."""
    row = database.execute(_LAST_SEQUENCE).fetchone()
    return int(row[0]) if row else 0


def _bytes_used(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _last_sequence_within(rows: Iterator[tuple[int, int]], excess: int) -> int | None:
    """Return the sequence up to which the oldest rows take `excess` bytes; None without rows."""
    last = None
    for sequence, size in rows:
        last = sequence
        excess -= size
        if excess <= 0:
            break
    return last


# ---------------------------------------------------------------- settings that changed


def apply_settings(database: sqlite3.Connection, routes: Routes) -> int:
    """Delete and re-date records as if today's settings had always held; return how many went.

    A record of which a route no longer allows all that it holds is deleted whole.
    """
    removed = 0
    for name, route in routes.items():
        database.execute(_REDATE, (route.kept.max_age, name))
        removed += _delete_disallowed(database, name, route)
        for group in database.execute(_GROUPS, (name,)).fetchall():
            _prune_group(database, group, (), routes)
    return removed


def _delete_disallowed(database: sqlite3.Connection, name: str, route: KeepSettings) -> int:
    now = _policy_of(route)
    return sum(
        database.execute(_FORGET, (name, then)).rowcount
        for (then,) in database.execute(_POLICIES, (name,)).fetchall()
        if not may_stay(now, _read_policy(then))
    )


def _policy_of(route: KeepSettings) -> Policy:
    return route.capture, frozenset(route.kept.drop_inputs)


def _policy_text(capture: str, route: KeepSettings | None) -> str:
    dropped: Sequence[str] = route.kept.drop_inputs if route else ()
    # A capture that isn't known may hold everything.
    return json.dumps([capture if capture in CAPTURES else "full", sorted(dropped)])


def _read_policy(text: str) -> Policy:
    capture, dropped = json.loads(text)
    return capture, frozenset(dropped)

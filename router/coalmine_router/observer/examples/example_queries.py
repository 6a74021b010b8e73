"""Reads kept examples from their file. Expired ones are not shown, even if still in the file."""

import sqlite3
from collections.abc import Iterator
from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.observer.comparison.result import KINDS
from coalmine_router.observer.examples.severity import RANKED, WORST_FIRST

LISTED_DEFAULT: Final = 20

_NEWEST: Final = "sequence DESC"
_HAS_OUTPUT: Final = (
    "EXISTS (SELECT 1 FROM mismatch_output AS o "
    "WHERE o.sequence = mismatch.sequence AND o.output = ?)"
)
_GET: Final = "SELECT facts, bodies FROM mismatch WHERE route = ? AND id = ? AND expires_ns > ?"


def check_request(wanted: pb.ListMismatchesRequest) -> None:
    """Raise InvalidRequest where the request names no kind that exists."""
    if wanted.kind and wanted.kind not in KINDS:
        raise InvalidRequest(f"kind: expected one of {', '.join(KINDS)}, got '{wanted.kind}'")


def matching_records(
    database: sqlite3.Connection, wanted: pb.ListMismatchesRequest, now_ns: int
) -> list[pb.Mismatch]:
    """Return the records that match, without bodies and values; a limit of 0 is 20."""
    where, given = zip(*_sql_conditions(wanted, now_ns), strict=True)
    order = WORST_FIRST if wanted.worst else _NEWEST
    query = (
        f"SELECT facts FROM {RANKED} WHERE {' AND '.join(where)} "  # noqa: S608 - constants
        f"ORDER BY {order} LIMIT ?"
    )
    rows = database.execute(query, (*given, wanted.limit or LISTED_DEFAULT))
    return [_clear_values(pb.Mismatch.FromString(facts)) for (facts,) in rows]


def _sql_conditions(wanted: pb.ListMismatchesRequest, now_ns: int) -> Iterator[tuple[str, object]]:
    yield "route = ?", wanted.route
    yield "expires_ns > ?", now_ns
    if wanted.candidate:
        yield "candidate = ?", wanted.candidate
    if wanted.kind:
        yield "kind = ?", wanted.kind
    if wanted.output:
        yield _HAS_OUTPUT, wanted.output


def _clear_values(record: pb.Mismatch) -> pb.Mismatch:
    # A list shows that answers differ. Callers' values are for those who may read a whole record.
    record.ClearField("note")
    for difference in record.differences:
        difference.ClearField("expected")
        difference.ClearField("actual")
    return record


def record_with_id(
    database: sqlite3.Connection, route: str, record_id: str, now_ns: int
) -> pb.Mismatch | None:
    """Return one record, whole; None where there is no such record."""
    row = database.execute(_GET, (route, record_id, now_ns)).fetchone()
    return None if row is None else pb.Mismatch.FromString(row[0] + row[1])

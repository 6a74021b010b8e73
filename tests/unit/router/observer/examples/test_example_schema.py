"""Files that older programs wrote."""

import sqlite3
from contextlib import closing
from pathlib import Path

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.examples.example_schema import layout
from coalmine_router.observer.examples.example_store import ExampleStore
from tests.doubles.clock import HandClock

_VERSION_1 = """
CREATE TABLE mismatch (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  route TEXT NOT NULL,
  candidate TEXT NOT NULL,
  summary BLOB NOT NULL,
  record BLOB NOT NULL
);
CREATE INDEX mismatch_of_pair ON mismatch (route, candidate, sequence);
"""


def older_file(path: Path, *records: bytes) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_VERSION_1)
        for number, record in enumerate(records):
            database.execute(
                "INSERT INTO mismatch (id, route, candidate, summary, record) VALUES (?,?,?,?,?)",
                (f"id-{number}", "digits", "canary", b"", record),
            )
        database.commit()


async def test_the_records_of_an_older_file_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    difference = pb.Difference(output="y", kind="nan", max_abs_diff=0.5)
    old = pb.Mismatch(
        id="id-0", route="digits", candidate="canary", differences=[difference], request=b"body"
    )
    older_file(path, old.SerializeToString(), b"\xff\xff", pb.Mismatch(id="b").SerializeToString())

    kept = ExampleStore(path, routes={}, clock=HandClock())
    listed = await kept.find(pb.ListMismatchesRequest(route="digits", output="y", kind="nan"))
    whole = await kept.get("digits", "id-0")
    await kept.close()

    assert [each.id for each in listed] == ["id-0"]
    assert (whole.request, whole.capture, whole.kind) == (b"body", "full", "nan")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (
            layout(lambda *_: None).version,
        )
        assert database.execute("SELECT count(*) FROM mismatch").fetchone() == (2,)


async def test_a_file_without_measures_gets_them_from_the_scores_that_it_has(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.sqlite"
    kept = ExampleStore(path, routes={}, clock=HandClock())
    for number, score in enumerate([0.5, -0.25, 0.75]):
        worst = pb.Difference(output="y", kind="value", rule="cosine", score=score)
        kept.offer(
            pb.Mismatch(
                id=f"id-{number}", route="r", candidate="c", kind="value", differences=[worst]
            )
        )
    await kept.close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DROP TABLE mismatch_rank; PRAGMA user_version = 2")

    kept = ExampleStore(path, routes={}, clock=HandClock())
    listed = await kept.find(pb.ListMismatchesRequest(route="r", worst=True))
    whole = await kept.get("r", "id-0")
    await kept.close()

    assert [each.id for each in listed] == ["id-1", "id-0", "id-2"]
    assert whole.differences[0].score == 0.5

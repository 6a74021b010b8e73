"""What stays is what the rule says of everything that came, however it was batched."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.examples import reservoir
from coalmine_router.observer.examples.example_schema import layout
from coalmine_router.observer.examples.reservoir import NumberedRecord
from coalmine_router.observer.examples.waiting_examples import WaitingExamples, WaitingLimits
from coalmine_router.state.sqlite_file import open_database, transaction

# kind, rows that differ, largest difference, rule, how bad by the rule's own measure
Came = tuple[str, int, float, str, float | None]


def routes(newest: int, worst: int) -> dict[str, RouteConfig]:
    fields: dict[str, Any] = {"name": "r", "match": {"model": "r"}}
    fields |= {"variants": {"stable": {"backend": "b"}}, "kept": {"newest": newest, "worst": worst}}
    return {"r": RouteConfig.model_validate(fields)}


def record(number: int, came: Came) -> pb.Mismatch:
    kind, rows_mismatch, max_abs_diff, rule, badness = came
    difference = pb.Difference(output="y", max_abs_diff=max_abs_diff, rule=rule, badness=badness)
    return pb.Mismatch(
        id=str(number),
        route="r",
        candidate="c",
        kind=kind,
        capture="full",
        rows_mismatch=rows_mismatch,
        differences=[difference],
    )


def expected(came: list[Came], newest: int, worst: int) -> set[int]:
    """Return the places of those that stay: the rule again, over all of them at once."""
    stay: set[int] = set()
    for kind in {each[0] for each in came}:
        places = [at for at, each in enumerate(came) if each[0] == kind]
        stay |= set(places[-newest:] if newest else [])
        for measure in {measure_of(came[at]) for at in places}:
            own = [at for at in places if measure_of(came[at]) == measure]
            own.sort(key=lambda at: (-(came[at][4] or 0.0), -came[at][1], -came[at][2], at))
            stay |= set(own[:worst])
    return stay


def measure_of(came: Came) -> str:
    return "" if came[4] is None else came[3]


def stayed(batches: list[list[pb.Mismatch]], newest: int, worst: int) -> tuple[set[int], int]:
    """Return who stayed, and how many rows there are of their outputs."""
    settings = routes(newest, worst)
    database = open_database(Path(":memory:"), layout(lambda *_: None), patience_s=0.0)
    for batch in batches:
        numbered = [NumberedRecord(int(each.id) + 1, each) for each in batch]
        with transaction(database):
            reservoir.write(database, numbered, settings, 2**30)
    found = {int(each) for (each,) in database.execute("SELECT id FROM mismatch")}
    (outputs,) = database.execute("SELECT count(*) FROM mismatch_output").fetchone()
    database.close()
    return found, outputs


@settings(max_examples=60)
@given(
    came=st.lists(
        st.tuples(
            st.sampled_from(["value", "nan"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.5, 1.0, float("inf")]),
            st.sampled_from(["cosine", "argmax"]),
            st.sampled_from([None, 0.25, 2.0, float("inf")]),
        ),
        max_size=40,
    ),
    newest=st.integers(0, 4),
    worst=st.integers(0, 4),
    batch=st.integers(1, 7),
)
def test_a_row_stays_while_it_is_among_the_newest_of_its_kind_or_the_worst_of_its_measure(
    came: list[Came], newest: int, worst: int, batch: int
) -> None:
    if not newest + worst:
        newest = 1
    records = [record(at, each) for at, each in enumerate(came)]
    batches = [records[at : at + batch] for at in range(0, len(records), batch)]

    found, outputs = stayed(batches, newest, worst)

    assert found == expected(came, newest, worst)
    assert outputs == len(found)


@settings(max_examples=60)
@given(
    came=st.lists(
        st.tuples(
            st.sampled_from(["value", "nan"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.5, float("inf")]),
            st.sampled_from(["cosine", "argmax"]),
            st.sampled_from([None, 0.25, 2.0]),
        ),
        max_size=40,
    ),
    newest=st.integers(1, 6),
    worst=st.integers(0, 6),
    writes=st.sets(st.integers(0, 40)),
)
def test_once_it_is_quiet_the_file_has_what_the_rule_says_however_slowly_it_was_written(
    came: list[Came], newest: int, worst: int, writes: set[int]
) -> None:
    kept = KeptConfig(newest=newest, worst=worst, per_second=0.1)
    waiting = WaitingExamples(WaitingLimits(), 0)
    database = open_database(Path(":memory:"), layout(lambda *_: None), patience_s=0.0)

    def write(now_s: int) -> None:
        taken = waiting.take(now_s * 10**9, "r")
        numbered = [NumberedRecord(each.rank.number, each.record) for each in taken]
        with transaction(database):
            reservoir.write(database, numbered, routes(newest, worst), 2**30)

    for at, each in enumerate(came):
        waiting.add(record(at, each), kept, at * 10**9)
        if at in writes:
            write(at)
    for after in range(60):
        write(len(came) + after * 30)

    found = {int(each) for (each,) in database.execute("SELECT id FROM mismatch")}
    database.close()
    assert found == expected(came, newest, worst)


def test_of_equally_bad_ones_the_oldest_stay() -> None:
    came: list[Came] = [("value", 1, 1.0, "close", None)] * 9

    assert stayed([[record(at, each) for at, each in enumerate(came)]], 2, 3)[0] == {0, 1, 2, 7, 8}


def test_a_file_without_rows_is_not_shrunk_for_ever() -> None:
    database = open_database(Path(":memory:"), layout(lambda *_: None), patience_s=0.0)

    assert reservoir.shrink(database, 1) == 0
    database.close()

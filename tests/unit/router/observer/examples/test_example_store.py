"""The kept examples, on a real file."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest, NotFound, Unavailable
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.examples.example_store import ExampleLimits, ExampleStore
from coalmine_router.observer.examples.waiting_examples import WaitingLimits
from tests.doubles.clock import HandClock
from tests.doubles.disk import contents
from tests.doubles.waiting import eventually

DAY_NS = 24 * 3_600 * 10**9


def route(**kept: Any) -> dict[str, RouteConfig]:
    """Return the settings of the route `digits`, with these for what is kept."""
    fields = {"name": "digits", "match": {"model": "digits"}, "kept": kept}
    variants = {"stable": {"backend": "blue"}}
    return {"digits": RouteConfig.model_validate({**fields, "variants": variants})}


def record(
    number: int,
    *,
    candidate: str = "canary",
    output: str = "y",
    kind: str = "value",
    max_abs_diff: float = 0.0,
    **fields: Any,
) -> pb.Mismatch:
    difference = pb.Difference(
        output=output, kind=kind, expected="1.0", actual="2.0", max_abs_diff=max_abs_diff
    )
    told: dict[str, Any] = {
        "id": f"id-{number}",
        "route": "digits",
        "reference": "stable",
        "candidate": candidate,
        "kind": kind,
        "capture": "full",
        "differences": [difference],
        "request": b"request",
        "reference_response": b"reference",
        "candidate_response": b"candidate",
    }
    return pb.Mismatch(**{**told, **fields})


@asynccontextmanager
async def store(
    path: Path,
    limits: ExampleLimits | None = None,
    *,
    clock: HandClock | None = None,
    routes: dict[str, RouteConfig] | None = None,
) -> AsyncIterator[ExampleStore]:
    opened = ExampleStore(path, routes=routes or route(), clock=clock or HandClock(), limits=limits)
    yield opened
    await opened.close()


async def ids(kept: ExampleStore, **wanted: Any) -> list[str]:
    asked = pb.ListMismatchesRequest(**{"route": "digits", **wanted})
    return [each.id for each in await kept.find(asked)]


def totals(**counts: int) -> dict[str, int]:
    dropped = ("passed_over", "dropped_queue_full", "dropped_disk")
    names = ("kept", *dropped, "removed_age", "removed_size")
    return {name: counts.get(name, 0) for name in names}


async def test_the_newest_come_first_and_only_one_by_one_with_bodies(tmp_path: Path) -> None:
    async with store(tmp_path / "state" / "m.sqlite") as kept:
        for each in range(3):
            kept.offer(record(each))
        listed = await kept.find(pb.ListMismatchesRequest(route="digits", limit=2))
        whole = await kept.get("digits", "id-1")
    assert [each.id for each in listed] == ["id-2", "id-1"]
    assert not any(
        each.request or each.reference_response or each.candidate_response for each in listed
    )
    assert whole == record(1)


async def test_they_survive_a_restart(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as before:
        before.offer(record(1))
    async with store(tmp_path / "m.sqlite") as after:
        after.offer(record(2))
        assert await ids(after) == ["id-2", "id-1"]


async def test_each_candidate_keeps_its_own_newest(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", routes=route(newest=3, worst=0)) as kept:
        kept.offer(record(0, candidate="rare"))
        for each in range(1, 21):
            kept.offer(record(each))
        listed = await ids(kept, limit=100)
        assert kept.totals() == totals(kept=4, passed_over=17)
    assert listed == ["id-20", "id-19", "id-18", "id-0"]


async def test_a_list_can_be_of_one_output(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        for each in range(60):
            kept.offer(record(each, output="rare" if each % 30 == 0 else "y"))
        assert await ids(kept, output="rare") == ["id-30", "id-0"]
        assert len(await ids(kept)) == 20
        assert await ids(kept, route="other") == []


async def test_an_unknown_id_or_another_routes_is_not_found(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        kept.offer(record(1))
        for route, each in (("digits", "id-9"), ("other", "id-1")):
            with pytest.raises(NotFound, match=each):
                await kept.get(route, each)


async def test_a_file_that_is_no_database_is_counted_and_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"not a database" * 100)
    with capture_logs() as logs:
        async with store(path) as kept:
            for each in range(5):
                kept.offer(record(each))
            with pytest.raises(Unavailable, match="can't be read"):
                await ids(kept)
            assert kept.totals() == totals(dropped_disk=5)
    assert [each["event"] for each in logs] == ["mismatches_not_kept"]


async def test_a_disk_that_works_again_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.mkdir()
    async with store(path) as kept:
        kept.offer(record(1))
        with pytest.raises(Unavailable):
            await ids(kept)
        path.rmdir()
        kept.offer(record(2))
        assert await ids(kept) == ["id-2"]
        assert kept.totals() == totals(kept=1, dropped_disk=1)


async def test_a_disk_that_works_again_is_found_without_a_further_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with capture_logs() as logs:
        async with store(path) as kept:
            kept.offer(record(0))
            assert await ids(kept) == ["id-0"]
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                kept.offer(record(1))
                await kept.write()
                for _ in range(3):
                    await kept.sweep()
                    assert "locked" in kept.trouble()
                other.execute("ROLLBACK")
            await kept.sweep()
            assert kept.trouble() == ""
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("mismatches_not_kept", "error"),
        ("mismatches_kept_again", "info"),
    ]


async def test_a_disk_whose_folder_comes_back_is_found_without_a_further_mismatch(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")
    async with store(folder / "m.sqlite") as kept:
        kept.offer(record(1))
        await kept.write()
        assert kept.trouble()
        folder.unlink()
        await kept.sweep()
        assert kept.trouble() == ""


async def test_a_file_that_is_moved_away_is_no_trouble_within_seconds(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"no database" * 100)
    async with store(path) as kept:
        running = asyncio.create_task(kept.run())
        await eventually(kept.trouble)
        path.rename(tmp_path / "away")
        await eventually(lambda: not kept.trouble())
        running.cancel()


async def test_while_the_file_is_locked_the_worst_wait_and_nobody_else_does(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    waiting = WaitingLimits(route_examples_max=4)
    async with store(path, ExampleLimits(waiting=waiting, busy_s=0.3)) as kept:
        kept.offer(record(0))
        assert len(await ids(kept)) == 1
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        kept.offer(record(1))
        writing = asyncio.create_task(kept.write("digits"))
        await asyncio.sleep(0)
        for each in range(2, 12):
            kept.offer(record(each, max_abs_diff=99.0 if each == 2 else 0.0))
        await writing
        assert kept.totals() == totals(kept=1, passed_over=6, dropped_disk=1)
        assert "locked" in kept.trouble()
        other.rollback()
        other.close()
        assert await ids(kept, worst=True) == ["id-2", "id-0", "id-3", "id-10", "id-11"]
        assert kept.trouble() == ""


async def test_what_is_too_large_to_wait_is_dropped(tmp_path: Path) -> None:
    limits = ExampleLimits(waiting=WaitingLimits(bytes_max=10))
    async with store(tmp_path / "m.sqlite", limits) as kept:
        kept.offer(record(1))
        assert kept.totals()["dropped_queue_full"] == 1


async def test_a_list_can_be_of_one_candidate_and_one_kind(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        kept.offer(record(1, candidate="int8"))
        kept.offer(record(2, kind="shape"))
        kept.offer(record(3))
        assert await ids(kept, candidate="canary") == ["id-3", "id-2"]
        assert await ids(kept, kind="shape") == ["id-2"]
        assert await ids(kept, candidate="int8", kind="shape") == []
        with pytest.raises(InvalidRequest, match="kind: expected one of status, malformed"):
            await ids(kept, kind="vlaue")


async def test_the_worst_come_first_where_they_are_asked_for(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        kept.offer(record(1, rows_mismatch=1, max_abs_diff=9.0))
        kept.offer(record(2, rows_mismatch=3, max_abs_diff=0.1))
        kept.offer(record(3, rows_mismatch=1, max_abs_diff=float("nan")))
        kept.offer(record(4, rows_mismatch=1, max_abs_diff=1.0))
        assert await ids(kept, worst=True) == ["id-2", "id-3", "id-1", "id-4"]


async def test_the_worst_of_each_measure_come_first_in_turn(tmp_path: Path) -> None:
    came = [("cosine", 0.5), ("argmax", 7.0), ("cosine", 1.5), ("argmax", 9.0), ("cosine", 1.0)]
    async with store(tmp_path / "m.sqlite", routes=route(newest=0, worst=2)) as kept:
        for number, (rule, badness) in enumerate(came):
            example = record(number, rows_mismatch=9 - number)
            example.differences[0].MergeFrom(pb.Difference(rule=rule, badness=badness))
            kept.offer(example)
        assert await ids(kept, worst=True) == ["id-2", "id-3", "id-1", "id-4"]


async def test_a_list_shows_no_values(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        secret = record(1, max_abs_diff=0.5)
        secret.note = "what the caller says"
        kept.offer(secret)
        (listed,) = await kept.find(pb.ListMismatchesRequest(route="digits"))
    assert listed.note == ""
    assert list(listed.differences) == [pb.Difference(output="y", kind="value", max_abs_diff=0.5)]


async def test_numbers_too_large_for_the_file_are_kept_as_the_largest(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        kept.offer(record(1, at_ns=2**64 - 1, rows_mismatch=2**64 - 1))
        assert await ids(kept) == ["id-1"]
        assert kept.totals() == totals(kept=1)


# ---------------------------------------------------------------- how much is written


async def test_of_many_the_disk_gets_a_burst_and_then_some_a_second_the_worst_first(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    async with store(tmp_path / "m.sqlite", clock=clock, routes=route(per_second=1)) as kept:
        for each in range(100):
            kept.offer(record(each, max_abs_diff=9.0 if each == 50 else 0.0))
        assert (await ids(kept, worst=True))[0] == "id-50"
        assert kept.totals() == totals(kept=30)
        clock.now_ns += 10 * 10**9
        await kept.write()
        assert kept.totals() == totals(kept=30), "small ones wait until there are many"
        await kept.write("digits")
        assert kept.totals() == totals(kept=40)


async def test_what_was_passed_over_at_first_is_in_the_file_once_it_is_quiet(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    routes = route(per_second=1, newest=40, worst=0)
    async with store(tmp_path / "m.sqlite", clock=clock, routes=routes) as kept:
        for each in range(100):
            kept.offer(record(each))
        for _ in range(3):
            clock.now_ns += 30 * 10**9
            await kept.write()
        assert await ids(kept, limit=100) == [f"id-{each}" for each in reversed(range(60, 100))]


async def test_at_the_end_all_that_stands_is_written(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", routes=route(per_second=1)) as kept:
        for each in range(100):
            kept.offer(record(each))
    assert kept.totals() == totals(kept=100)


async def test_a_reader_who_gives_up_takes_no_example_with_it(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    async with store(path, ExampleLimits(busy_s=5.0)) as kept:
        kept.offer(record(0))
        assert await ids(kept) == ["id-0"]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            kept.offer(record(1))
            reading = asyncio.create_task(ids(kept))
            await asyncio.sleep(0)
            sweeping = asyncio.create_task(kept.sweep())
            kept.offer(record(2))
            reading.cancel()
            other.execute("ROLLBACK")
        await sweeping
        assert await ids(kept) == ["id-2", "id-1", "id-0"]


async def test_sequences_go_on_where_the_file_of_before_ended(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", routes=route(newest=2, worst=0)) as kept:
        for each in range(9):
            kept.offer(record(each))
    async with store(tmp_path / "m.sqlite", routes=route(newest=2, worst=0)) as kept:
        kept.offer(record(9))
        assert await ids(kept) == ["id-9", "id-8"]


# ---------------------------------------------------------------- age and size


async def test_what_is_too_old_goes_also_of_a_route_that_is_gone(tmp_path: Path) -> None:
    clock = HandClock()
    async with store(tmp_path / "m.sqlite", clock=clock, routes=route(max_age="24h")) as kept:
        kept.offer(record(1, at_ns=1))
        kept.offer(record(2, route="gone", at_ns=1))
        clock.now_ns = DAY_NS + 1
        assert await ids(kept) == []
        with pytest.raises(NotFound):
            await kept.get("digits", "id-1")
        assert await ids(kept, route="gone") == ["id-2"]  # it has the default's 30 days
        clock.now_ns = 30 * DAY_NS + 1
        await kept.sweep()
        assert kept.totals() == totals(kept=2, removed_age=2)


async def test_a_shorter_age_holds_for_what_is_there_from_the_next_start(tmp_path: Path) -> None:
    clock = HandClock()
    path = tmp_path / "m.sqlite"
    async with store(path, clock=clock, routes=route(max_age="48h")) as kept:
        kept.offer(record(1))
    clock.now_ns = DAY_NS
    async with store(path, clock=clock, routes=route(max_age="24h")) as kept:
        assert await ids(kept) == []


async def test_fewer_to_keep_holds_for_what_is_there_from_the_next_start(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        for each in range(9):
            kept.offer(record(each))
    async with store(tmp_path / "m.sqlite", routes=route(newest=2, worst=0)) as kept:
        assert await ids(kept) == ["id-8", "id-7"]


@pytest.mark.parametrize(
    "stricter", [{"capture": "shapes"}, {"capture": "none"}, {"drop_inputs": ["pixels"]}]
)
async def test_what_a_route_would_no_longer_let_be_kept_goes_with_the_next_start(
    tmp_path: Path, stricter: dict[str, Any]
) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        kept.offer(record(1, request=b"a-secret"))
        kept.offer(record(2, route="other"))
    async with store(tmp_path / "m.sqlite", routes=route(**stricter)) as kept:
        assert await ids(kept) == []
        assert await ids(kept, route="other") == ["id-2"]
        assert b"a-secret" not in contents(tmp_path)


async def test_the_file_is_bounded_in_bytes_and_the_oldest_go(tmp_path: Path) -> None:
    limits = ExampleLimits(file_bytes_max=400_000)
    async with store(tmp_path / "m.sqlite", limits) as kept:
        for each in range(40):
            kept.offer(record(each, kind="value" if each % 2 else "nan", at_ns=each))
            large = record(100 + each, candidate=f"c{each}", at_ns=each)
            large.request = bytes(40_000)
            kept.offer(large)
            await kept.write("digits")
        found = await ids(kept, limit=1_000)
        assert kept.totals()["removed_size"] == 80 - len(found)
    assert found[0] == "id-139"
    assert "id-100" not in found
    assert (tmp_path / "m.sqlite").stat().st_size < 600_000


async def test_bytes_that_were_deleted_are_nowhere_in_the_folder(tmp_path: Path) -> None:
    clock = HandClock()
    async with store(tmp_path / "m.sqlite", clock=clock) as kept:
        kept.offer(record(1, segment="a-secret"))
        await kept.write()
        assert b"a-secret" in contents(tmp_path)
        clock.now_ns = 31 * DAY_NS
        await kept.sweep()
        assert b"a-secret" not in contents(tmp_path)


async def test_bytes_that_were_pushed_out_are_not_in_the_file(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", routes=route(newest=1, worst=0)) as kept:
        kept.offer(record(1, request=b"a-secret" * 10_000))
        assert await ids(kept) == ["id-1"]
        assert b"a-secret" in contents(tmp_path)
        kept.offer(record(2))
        assert await ids(kept) == ["id-2"]
    assert b"a-secret" not in contents(tmp_path)


# ---------------------------------------------------------------- when the disk is in trouble


async def test_a_file_damaged_in_its_middle_fails_nobody(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    async with store(path) as kept:
        for each in range(200):
            kept.offer(record(each))
    damaged = bytearray(path.read_bytes())
    damaged[4_096:] = b"\xff" * (len(damaged) - 4_096)
    path.write_bytes(damaged)
    async with store(path) as kept:
        kept.offer(record(1_000))
        with pytest.raises(Unavailable, match="can't be read"):
            await ids(kept)
        assert kept.totals() == totals(dropped_disk=1)


@pytest.mark.parametrize("gone", ["m.sqlite", "m.sqlite*"])
async def test_where_the_file_is_deleted_a_new_one_begins_empty(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "state" / "m.sqlite"
    async with store(path) as kept:
        kept.offer(record(1))
        assert await ids(kept) == ["id-1"]
        for each in path.parent.glob(gone):
            each.unlink()
        with capture_logs() as logs:
            kept.offer(record(2))
            assert await ids(kept) == ["id-2"]
            await kept.sweep()
        assert kept.totals() == totals(kept=2)
    assert [each["event"] for each in logs] == ["mismatches_file_gone"]
    async with store(path) as after:
        assert await ids(after) == ["id-2"]


async def test_a_file_that_takes_anothers_place_is_brought_to_what_the_route_says(
    tmp_path: Path,
) -> None:
    async with store(tmp_path / "other.sqlite") as other:
        other.offer(record(1, request=b"a-secret"))
        other.offer(record(2, route="other"))
    async with store(tmp_path / "m.sqlite", routes=route(capture="shapes")) as kept:
        assert await ids(kept) == []
        (tmp_path / "other.sqlite").rename(tmp_path / "m.sqlite")
        assert await ids(kept) == []
        assert await ids(kept, route="other") == ["id-2"]
        assert b"a-secret" not in contents(tmp_path)


async def test_a_file_of_a_newer_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=99")
    before = contents(tmp_path)
    async with store(path) as kept:
        kept.offer(record(1))
        with pytest.raises(Unavailable, match="newer coalmine: version 99"):
            await ids(kept)
        assert kept.totals() == totals(dropped_disk=1)
    assert contents(tmp_path) == before


_WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.examples.example_store import ExampleStore, ExampleLimits
from coalmine_router.observer.examples.waiting_examples import WaitingLimits

async def main(path, bytes_max):
    if bytes_max:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
    limits = ExampleLimits(waiting=WaitingLimits(written_bytes_burst=2**30))
    kept = ExampleStore(path, routes={}, clock=SystemClock(), limits=limits)
    for number in range(200):
        body = bytes([number]) * 20_000
        route = f"route-{number % 2}"
        record = pb.Mismatch(id=f"id-{number}", at_ns=2**62, route=route, request=body)
        kept.offer(record)
        await kept.write(route)
        print(number, kept.totals()["kept"], kept.totals()["dropped_disk"], flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def writer(path: Path, bytes_max: int = 0) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _WRITER, str(path), str(bytes_max)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


async def of_both_routes(kept: ExampleStore) -> list[int]:
    routes = ("route-0", "route-1")
    found = [each for route in routes for each in await ids(kept, route=route, limit=1_000)]
    return [int(each.removeprefix("id-")) for each in found]


async def body_of(kept: ExampleStore, number: int) -> bytes:
    return (await kept.get(f"route-{number % 2}", f"id-{number}")).request


async def test_a_writer_that_is_killed_leaves_a_file_with_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with writer(path) as process:
        assert process.stdout
        while int(process.stdout.readline().split()[0]) < 20:
            pass
        os.kill(process.pid, signal.SIGKILL)
    async with store(path) as kept:
        found = await of_both_routes(kept)
        assert len(found) > 20
        for number in found:
            assert await body_of(kept, number) == bytes([number]) * 20_000
        kept.offer(record(1_000))
        assert (await ids(kept))[0] == "id-1000"


async def test_a_full_disk_fails_nobody_and_what_was_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with writer(path, bytes_max=500_000) as process:
        assert process.stdout
        *_, last = process.stdout.read().splitlines()
    assert process.returncode == 0
    number, written, dropped = map(int, last.split())
    assert number == 199
    assert written > 5
    assert written + dropped == 200
    async with store(path) as kept:
        found = await of_both_routes(kept)
        assert len(found) == written
        assert all([await body_of(kept, number) for number in found])

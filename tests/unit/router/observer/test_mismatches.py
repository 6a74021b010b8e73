"""The kept examples, on a real file."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound, Unavailable
from coalmine_router.observer.compare import Answer, Comparison, Difference
from coalmine_router.observer.exchange import Compared, Exchange, ShadowCall
from coalmine_router.observer.mismatches import Mismatches, MismatchLimits
from coalmine_router.observer.records import BODY_BYTES_MAX, mismatch_record
from coalmine_router.observer.rules import Element
from tests.doubles.oip_backend import response_body
from tests.doubles.reports import report

BODY = response_body(y=np.zeros(4))


def record(number: int, *, candidate: str = "canary", output: str = "y") -> pb.Mismatch:
    return pb.Mismatch(
        id=f"id-{number}",
        route="digits",
        reference="stable",
        candidate=candidate,
        differences=[pb.Difference(output=output, kind="value")],
        request=b"request",
        reference_response=b"reference",
        candidate_response=b"candidate",
    )


@asynccontextmanager
async def store(path: Path, limits: MismatchLimits | None = None) -> AsyncIterator[Mismatches]:
    opened = Mismatches(path, limits)
    yield opened
    await opened.close()


def ids(records: list[pb.Mismatch]) -> list[str]:
    return [each.id for each in records]


async def test_the_newest_come_first_and_only_one_by_one_with_bodies(tmp_path: Path) -> None:
    async with store(tmp_path / "state" / "m.sqlite") as kept:
        for each in range(3):
            kept.offer(record(each))
        listed = await kept.newest("digits", "", 2)
        whole = await kept.get("digits", "id-1")
    assert ids(listed) == ["id-2", "id-1"]
    assert not any(
        each.request or each.reference_response or each.candidate_response for each in listed
    )
    assert whole == record(1)


async def test_they_survive_a_restart(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as before:
        before.offer(record(1))
    async with store(tmp_path / "m.sqlite") as after:
        after.offer(record(2))
        assert ids(await after.newest("digits", "", 0)) == ["id-2", "id-1"]


async def test_each_candidate_keeps_its_own_newest(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", MismatchLimits(kept=3)) as kept:
        kept.offer(record(0, candidate="rare"))
        for each in range(1, 21):
            kept.offer(record(each))
        listed = ids(await kept.newest("digits", "", 100))
        assert kept.totals() == {"kept": 21, "dropped_queue_full": 0, "dropped_disk": 0}
    assert listed == ["id-20", "id-19", "id-18", "id-0"]


async def test_a_list_can_be_of_one_output(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite") as kept:
        for each in range(60):
            kept.offer(record(each, output="rare" if each % 30 == 0 else "y"))
        assert ids(await kept.newest("digits", "rare", 0)) == ["id-30", "id-0"]
        assert len(await kept.newest("digits", "", 0)) == 20
        assert await kept.newest("other", "", 0) == []


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
                await kept.newest("digits", "", 0)
            assert kept.totals() == {"kept": 0, "dropped_queue_full": 0, "dropped_disk": 5}
    assert [each["event"] for each in logs] == ["mismatches_not_kept"]


async def test_a_disk_that_works_again_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.mkdir()
    async with store(path) as kept:
        kept.offer(record(1))
        with pytest.raises(Unavailable):
            await kept.newest("digits", "", 0)
        path.rmdir()
        kept.offer(record(2))
        assert ids(await kept.newest("digits", "", 0)) == ["id-2"]
        assert kept.totals() == {"kept": 1, "dropped_queue_full": 0, "dropped_disk": 1}


async def test_while_the_file_is_locked_the_queue_is_bounded_and_nobody_waits(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.sqlite"
    async with store(path, MismatchLimits(queue_records_max=2, busy_s=0.3)) as kept:
        kept.offer(record(0))
        assert len(await kept.newest("digits", "", 0)) == 1
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        for each in range(1, 11):
            kept.offer(record(each))
        assert kept.totals()["dropped_queue_full"] == 8
        assert len(await kept.newest("digits", "", 0)) == 1
        other.rollback()
        other.close()
        assert kept.totals()["dropped_disk"] == 2
        assert kept._failing
        kept.offer(record(11))
        assert ids(await kept.newest("digits", "", 0)) == ["id-11", "id-0"]
        assert not kept._failing


async def test_the_queue_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    async with store(tmp_path / "m.sqlite", MismatchLimits(queue_bytes_max=10)) as kept:
        kept.offer(record(1))
        assert kept.totals()["dropped_queue_full"] == 1


@pytest.mark.parametrize(("size", "is_kept"), [(BODY_BYTES_MAX, True), (BODY_BYTES_MAX + 1, False)])
def test_bodies_over_the_limit_are_left_out_all_three(size: int, is_kept: bool) -> None:
    exchange = Exchange.of(report(b"r" * size, BODY, shadows=["canary"]))
    call = ShadowCall("canary", "green", "h:1", b"shadow-1", 1, 1, Answer(BODY))
    difference = Difference("y", "value", (Element((2,), "1.0", "2.0"),), 1.0, 1, 4)
    compared = Compared(Comparison("mismatch", "value", (difference,)), b"compare1", 77, 1)
    made = mismatch_record("id", exchange, call, compared)
    assert made.bodies_dropped is not is_kept
    assert bool(made.request) is bool(made.reference_response) is is_kept
    assert bool(made.candidate_response) is is_kept
    assert (made.at_ns, made.reference, made.candidate) == (77, "stable", "canary")
    assert made.trace_id == exchange.report.trace_id
    assert list(made.differences) == [
        pb.Difference(
            output="y",
            kind="value",
            index=[2],
            expected="1.0",
            actual="2.0",
            max_abs_diff=1.0,
            differing=1,
            elements=4,
        )
    ]

"""What an observer leaves: verdicts on disk before they are told, sums that add up at any end."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from structlog.testing import capture_logs

from coalmine import telemetry as t
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.comparer import ComparerLimits
from tests.doubles.clock import HandClock
from tests.doubles.digit_reports import LOGITS, REQUEST, RESPONSE
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import Answer, OipBackend, answering
from tests.doubles.reports import UNUSED, report, router_config
from tests.doubles.span_list import SpanList
from tests.doubles.waiting import eventually

MISMATCH = "compare canary: mismatch"
WRONG = answering(logits=LOGITS + np.float32(0.5))


class Watching(SpanList):
    """Takes spans, and calls `at` with each as it comes."""

    def __init__(self, at: Callable[[ReadableSpan], None]) -> None:
        super().__init__()
        self._at = at

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        self._at(span)

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.spans if each.name == name]


def shadowed(count: int = 1, **fields: Any) -> list[pb.Report]:
    return [report(REQUEST, RESPONSE, shadows=["canary"], **fields) for _ in range(count)]


def kept_verdicts(folder: Path) -> list[str]:
    """Return what the disk has of trials, read from outside."""
    database = sqlite3.connect(folder / "evidence.db", isolation_level=None)
    try:
        saved = "SELECT json_extract(saved, '$.verdict.verdict') FROM trial"
        return [row[0] for row in database.execute(saved)]
    finally:
        database.close()


# ---------------------------------------------------------------- a verdict, and the disk


async def test_a_verdict_is_on_disk_before_its_span_is_made(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look(span: ReadableSpan) -> None:
        if span.name.startswith("verdict "):
            seen.append(kept_verdicts(tmp_path))

    watching = Watching(look)
    async with OipBackend(WRONG) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path, spans=watching) as rig:
            await rig.send(*shadowed(20))
            await rig.settled(20)
            await rig.plane.wait_until_idle()
    assert seen == [["fail"]]


async def test_a_verdict_is_told_although_the_disk_does_not_take_it(tmp_path: Path) -> None:
    watching = Watching(lambda _: None)
    async with OipBackend(WRONG) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path, spans=watching) as rig:
            locked = sqlite3.connect(tmp_path / "evidence.db", isolation_level=None)
            locked.execute("BEGIN EXCLUSIVE")
            with capture_logs() as logs:
                await rig.send(*shadowed(20))
                await rig.settled(20)
                await rig.plane.wait_until_idle()
            (trouble,) = rig.status().troubles
            locked.execute("ROLLBACK")
            locked.close()
            assert rig.status().verdict == "fail"
            assert (rig.metric("evidence_saves_failed_total") or 0) > 0
    assert len(watching.named("verdict canary: fail")) == 1
    assert "evidence_not_saved" in {each["event"] for each in logs}
    assert trouble == f"{tmp_path}/evidence.db: evidence is not saved: database is locked"
    assert kept_verdicts(tmp_path) == ["fail"], "the last save was taken"


async def test_errors_and_shares_of_the_split_bear_a_verdict_without_a_single_copy(
    tmp_path: Path,
) -> None:
    watching = Watching(lambda _: None)
    config = router_config(stable=UNUSED, canary=UNUSED)
    reports = []
    for n in range(1_500):
        variant = "canary" if n % 2 else "stable"
        # Of ten requests, four of the canary's fail, and two of stable's.
        made = report(
            variant=variant, sampled=False, status_code=13 if n % 20 < (8 if n % 2 else 4) else 0
        )
        made.attempts[0].variant = variant
        made.split_bp.update({"stable": 5_000, "canary": 5_000})
        reports.append(made)
    # Errors are judged by spells of half a minute. Here each look at the clock takes a second.
    clock = HandClock(epoch_ns=time.time_ns(), step_ns=1_000_000_000)
    async with observing(config, tmp_path, spans=watching, clock=clock) as rig:
        await rig.send(*reports)
        await rig.plane.wait_until_idle()
        status = rig.status()
    assert status.verdict == "fail"
    (counts,) = status.comparisons
    assert (counts.verdict.gates[1].gate, counts.verdict.gates[1].finding) == ("errors", "fail")
    (verdict,) = watching.named("verdict canary: fail")
    (tipped,) = [each for each in watching.spans if t.TIPPED in (each.attributes or {})]
    assert (tipped.attributes or {})[t.TIPPED] == "fail"
    assert tipped.context is not None
    assert verdict.links[0].context.span_id == tipped.context.span_id


class Lost(Watching):
    """Loses spans."""

    def __init__(self, why: str) -> None:
        super().__init__(lambda _: None)
        self.lost = 0
        self._why = why

    def totals(self) -> dict[str, int]:
        return {"exported": 7, "dropped_queue_full": self.lost, "dropped_export_failed": self.lost}

    def trouble(self) -> str:
        return self._why


@pytest.mark.parametrize(
    ("why", "told"),
    [("spans are not exported: full",) * 2, ("", "6 spans lost within a minute")],
)
async def test_spans_are_in_trouble_as_long_as_some_are_lost(
    tmp_path: Path, why: str, told: str
) -> None:
    spans = Lost(why)
    config = router_config(stable=UNUSED, canary=UNUSED)
    async with observing(config, tmp_path, spans=spans) as rig:
        assert rig.status().troubles == []
        spans.lost = 3
        assert rig.status().troubles == [told]
        for minute in (1, 2):
            rig.plane.queries.note_counts(SystemClock().monotonic_ns() + minute * 60 * 10**9)
        assert rig.status().troubles == []


async def test_what_went_wrong_within_the_last_minute_is_told_apart(tmp_path: Path) -> None:
    config = router_config(stable=UNUSED, canary=UNUSED)
    codes = {0: 5, 3: 2, 13: 4, 14: 1}
    made = [report(status_code=code) for code, count in codes.items() for _ in range(count)]
    refused = report(status_code=8, turned_away="in_flight")
    async with observing(config, tmp_path) as rig:
        await rig.send(*made, refused)
        dropping = pb.ReportBatch(proxy_id="p2", number=1, dropped_total={"buffer_full": 3})
        await rig.send_batch(dropping)
        first = rig.status()
        for minute in (1, 2):
            rig.plane.queries.note_counts(SystemClock().monotonic_ns() + minute * 60 * 10**9)
        later = rig.status()
    (stable, canary) = first.variants
    assert (stable.recent_requests, stable.recent_errors) == (13, 5)
    assert (canary.recent_requests, canary.recent_errors) == (0, 0)
    assert (first.recent_turned_away, first.reports.recent_dropped) == (1, 3)
    assert (later.variants[0].requests, later.reports.dropped["buffer_full"]) == (13, 3)
    assert later.variants[0].recent_requests == later.variants[0].recent_errors == 0
    assert later.recent_turned_away == later.reports.recent_dropped == 0


# ---------------------------------------------------------------- what goes wrong in the middle


def uncompared(status: pb.RouteStatus) -> int:
    return sum(each.uncompared for each in status.shadows)


def assert_it_adds_up(status: pb.RouteStatus) -> None:
    for each in status.shadows:
        dropped = sum(each.dropped.values())
        assert each.offered == dropped + each.waiting + each.under_way + each.sent, each
        assert each.sent == each.compared + each.uncompared, each


async def test_an_exchange_that_cannot_be_told_costs_itself_alone(tmp_path: Path) -> None:
    def fail(span: ReadableSpan) -> None:
        if span.name == MISMATCH and len(watching.named(MISMATCH)) == 3:
            raise RuntimeError("no more ink")

    watching = Watching(fail)
    async with OipBackend(WRONG) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        with capture_logs() as logs:
            async with observing(config, tmp_path, spans=watching) as rig:
                await rig.send(*shadowed(8))
                await rig.settled(8)
                await rig.send(*shadowed(2))
                status = await rig.settled(10)
                await rig.plane.wait_until_idle()
    assert (status.shadows[0].compared, len(watching.named(MISMATCH))) == (10, 10)
    assert [each["event"] for each in logs].count("exchange_not_told") == 1


async def test_what_comparing_leaves_out_is_counted_as_uncompared(tmp_path: Path) -> None:
    async with OipBackend(WRONG) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        # No bytes on the loop, and no room elsewhere: whatever comes is left out.
        none = ComparerLimits(backlog_bytes_max=1, backlog_jobs_max=1, loop_bytes_max=0)
        async with observing(config, tmp_path, pool=none) as rig:
            await rig.send(*shadowed(20))
            status = await rig.settled(20)
            left_out = rig.metric("exchanges_left_out_total")
    assert uncompared(status) == left_out != 0
    assert_it_adds_up(status)


@pytest.mark.parametrize("answered", [0, 7])
async def test_an_end_in_the_middle_of_copies_leaves_sums_that_add_up(
    tmp_path: Path, answered: int
) -> None:
    """Some copies are answered, some are under way, others wait."""
    seen = 0

    def some(_: Any) -> Answer:
        nonlocal seen
        seen += 1
        return Answer(RESPONSE, until=None if seen <= answered else asyncio.Event())

    watching = Watching(lambda _: None)
    async with OipBackend(some) as shadow:
        shadows = {"canary": {"share": 100, "concurrency": 4}}
        config = router_config(stable=UNUSED, canary=shadow.address, route={"shadows": shadows})
        rigs: list[Observing] = []
        async with asyncio.timeout(10):
            async with observing(config, tmp_path, spans=watching) as rig:
                rigs.append(rig)
                await rig.send(*shadowed(30))
                await shadow.wait_seen(answered + 4)
                await eventually(lambda: rig.compared() == answered)
        status = rigs[0].status()
    assert_it_adds_up(status)
    (copies,) = status.shadows
    assert (copies.offered, copies.compared, copies.dropped["stopping"]) == (
        *(30, answered, 30 - answered),
    )
    servers = [each for each in watching.spans if each.kind.name == "SERVER"]
    assert len(servers) == 30, "each request is told, whatever became of its copies"


@pytest.mark.parametrize("turns", range(6))
async def test_an_end_between_an_answer_and_its_comparison_leaves_sums_that_add_up(
    tmp_path: Path, turns: int
) -> None:
    """The end comes as many turns of the loop after the answers as the test is told."""
    watching = Watching(lambda _: None)
    let_go = asyncio.Event()
    async with OipBackend(lambda _: Answer(RESPONSE, until=let_go)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        rigs: list[Observing] = []
        async with asyncio.timeout(10):
            async with observing(config, tmp_path, spans=watching) as rig:
                rigs.append(rig)
                await rig.send(*shadowed(20))
                await shadow.wait_seen(20)
                let_go.set()
                await eventually(lambda: rig.status().shadows[0].sent > 0)
                for _ in range(turns):
                    await asyncio.sleep(0)
        status = rigs[0].status()
    assert_it_adds_up(status)
    servers = [each for each in watching.spans if each.kind.name == "SERVER"]
    assert len(servers) == 20


async def test_an_end_while_a_process_compares_counts_what_it_was_at(tmp_path: Path) -> None:
    async with OipBackend(WRONG) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        elsewhere = ComparerLimits(loop_bytes_max=0)
        rigs: list[Observing] = []
        async with asyncio.timeout(20):
            async with observing(config, tmp_path, pool=elsewhere) as rig:
                rigs.append(rig)
                await rig.send(*shadowed(50))
                await eventually(lambda: rig.status().shadows[0].answered == 50)
        status = rigs[0].status()
    assert_it_adds_up(status)
    assert rigs[0].metric("exchanges_left_out_total") == uncompared(status)

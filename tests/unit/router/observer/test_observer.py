"""The way of a report, with all that surrounds the observer made by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.evidence_intake import EvidenceIntake
from coalmine_router.observer.observed_request import Copy, CopyCall, ObservedRequest, copies_of
from coalmine_router.observer.observer import Observer
from coalmine_router.observer.order import WAITING_MAX
from coalmine_router.observer.route_settings import RouteSettings
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.table import RouteTable
from tests.doubles.clock import HandClock
from tests.doubles.evidence import FAIL
from tests.doubles.observed_requests import copy_call, mismatch, pair_result
from tests.doubles.reports import UNUSED, report, router_config
from tests.doubles.waiting import eventually


class HandCopies:
    """Copies that are answered, or given up, when the test says so."""

    def __init__(self) -> None:
        self.offered: list[tuple[ObservedRequest, Copy]] = []
        self.counted: list[str] = []
        self.at_the_end: Callable[[], None] = self.give_up_all
        self._ended: dict[ObservedRequest, asyncio.Future[None]] = {}
        self._runs = True

    def send(self, observed: ObservedRequest, _table: RouteTable) -> "asyncio.Future[None] | None":
        if not self._runs:
            observed.waiting = 0
            return None
        self.offered += [(observed, copy) for copy in copies_of(observed.report)]
        self._ended[observed] = asyncio.get_running_loop().create_future()
        return self._ended[observed]

    def answer(self, place: int = 0) -> None:
        observed, copy = self.offered.pop(place)
        observed.calls.append(copy_call(copy.variant, copy.role))
        self._end(observed)

    def give_up(self) -> None:
        observed, _ = self.offered.pop(0)
        self._end(observed)

    def give_up_all(self) -> None:
        while self.offered:
            self.give_up()

    def _end(self, observed: ObservedRequest) -> None:
        observed.waiting -= 1
        if not observed.waiting and not self._ended[observed].done():
            self._ended[observed].set_result(None)

    def count_compared(self, observed: ObservedRequest) -> None:
        word = "compared" if observed.results else "uncompared"
        self.counted += [f"{word} {each.copy.variant}" for each in observed.calls]

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._runs = False
            await asyncio.sleep(0)  # whoever waits has heard of the end by then
            self.at_the_end()


class ObserverRig:
    """An observer, and what it does to those around it; they do what `compare` and `save` do."""

    def __init__(self) -> None:
        self.copies = HandCopies()
        self.done: list[str] = []
        self.calls: list[list[CopyCall]] = []
        self.may_save = asyncio.Event()
        self.may_save.set()
        self.then: Callable[[ObservedRequest], None] = lambda _: None
        self.end: Callable[[], object] = lambda: None
        self.told: list[ObservedRequest] = []
        self.tell: Callable[[ObservedRequest], None] = self.told.append
        table = router_config(stable=UNUSED, canary=UNUSED, int8=UNUSED).table()
        around: dict[str, Any] = {"comparer": self, "store": self, "spans": self}
        self.observer = Observer(
            tables=lambda: table,
            routes={},
            traffic=TrafficCounts(),
            evidence=EvidenceIntake(Trials(), Tally(), {}, HandClock()),
            copies=self.copies,  # type: ignore[arg-type]  # by hand
            **around,
        )

    async def compare(self, observed: ObservedRequest) -> None:
        self.calls.append(list(observed.calls))
        self.then(observed)
        observed.results = [pair_result(mismatch())]

    async def save(self) -> bool:
        self.done.append("saving")
        await self.may_save.wait()
        self.done.append("saved")
        return True

    def write_request(self, observed: ObservedRequest, _settings: RouteSettings) -> None:
        self.tell(observed)
        self.done.append(f"told {len(observed.results)}")

    def write_verdict(self, change: VerdictChange) -> None:
        self.done.append(f"verdict {change.verdict.verdict}")

    def observe(self, *shadows: str, **fields: Any) -> None:
        self.observer.observe(report(b"asked", b"given", shadows=shadows, **fields))

    async def counted(self, copies: int) -> None:
        """Return once so many copies that were answered are counted."""
        await eventually(lambda: len(self.copies.counted) >= copies)

    @property
    def told_of(self) -> list[str]:
        """Whom each request that was told had a copy for."""
        return [" ".join(each.report.shadows) for each in self.told]


def tips(observed: ObservedRequest) -> None:
    change = VerdictChange("digits", "stable", "canary", FAIL, FAIL, at_ns=1)
    observed.changes.append(change)


@asynccontextmanager
async def running() -> AsyncIterator[ObserverRig]:
    """Run it until the block ends."""
    rig = ObserverRig()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.observer.run())
        rig.end = task.cancel
        await asyncio.sleep(0)
        try:
            yield rig
        finally:
            task.cancel()


async def test_a_report_without_copies_is_told_at_once() -> None:
    async with running() as rig:
        rig.observe()
        assert rig.done == ["told 0"]


async def test_it_is_concluded_once_when_the_last_copy_has_come_to_something() -> None:
    async with running() as rig:
        rig.observe("canary", "int8", "canary")
        rig.copies.answer()
        rig.copies.give_up()
        await asyncio.sleep(0)
        assert rig.done == []
        rig.copies.answer()
        await rig.observer.wait_until_idle()
    assert [[each.copy.variant for each in calls] for calls in rig.calls] == [["canary"] * 2]
    assert rig.copies.counted == ["compared canary"] * 2
    assert rig.done == ["told 1"]


async def test_where_no_copy_came_back_there_is_nothing_to_conclude() -> None:
    async with running() as rig:
        rig.observe("canary")
        rig.copies.give_up()
    assert (rig.calls, rig.copies.counted, rig.done) == ([], [], ["told 0"])


async def test_settled_waits_for_comparisons_and_for_verdicts_on_their_way_to_the_disk() -> None:
    async with running() as rig:
        rig.then = tips
        rig.may_save.clear()
        rig.observe("canary")
        rig.copies.answer()
        async with asyncio.TaskGroup() as tasks:
            settled = tasks.create_task(rig.observer.wait_until_idle())
            await eventually(lambda: "saving" in rig.done)
            assert not settled.done()
            rig.may_save.set()
    assert rig.done == ["told 1", "saving", "saved", "verdict fail"]


async def test_a_verdict_that_the_end_overtakes_on_its_way_to_the_disk_is_told() -> None:
    async with running() as rig:
        rig.then = tips
        rig.may_save.clear()
        rig.observe("canary")
        rig.copies.answer()
        await eventually(lambda: "saving" in rig.done)
    assert rig.done == ["told 1", "saving", "verdict fail"]


async def test_a_comparison_that_the_end_overtakes_before_it_began_is_counted_and_told() -> None:
    async with running() as rig:
        rig.end()  # the observer hears of it in the loop's next turn
        rig.observe("canary")
        rig.copies.answer()
    assert (rig.calls, rig.copies.counted, rig.done) == ([], ["uncompared canary"], ["told 0"])
    async with asyncio.timeout(1):
        await rig.observer.wait_until_idle()


async def test_a_comparison_that_the_end_overtakes_as_it_would_begin_is_counted_and_told() -> None:
    async with running() as rig:
        rig.observe("canary")
        await asyncio.sleep(0)  # it is followed by now
        rig.end()
        rig.copies.answer()
    assert (rig.calls, rig.copies.counted, rig.done) == ([], ["uncompared canary"], ["told 0"])


async def test_what_comes_at_the_end_and_after_it_is_counted_and_told() -> None:
    async with running() as rig:
        rig.observe("canary", "int8")
        rig.copies.answer()
        rig.copies.at_the_end = rig.copies.answer
    assert (rig.calls, rig.copies.counted) == ([], ["uncompared canary", "uncompared int8"])
    rig.observe("canary")
    rig.observe()
    assert rig.done == ["told 0"] * 3
    async with asyncio.timeout(1):
        await rig.observer.wait_until_idle()


@pytest.mark.parametrize("tipped", [False, True])
async def test_what_fails_while_it_is_concluded_costs_itself_alone(tipped: bool) -> None:
    """What it had changed by then is told all the same."""

    def fail(observed: ObservedRequest) -> None:
        if tipped:
            tips(observed)
        raise RuntimeError("odd")

    async with running() as rig:
        rig.then = fail
        rig.observe("canary")
        rig.observe("int8")
        with capture_logs() as logs:
            rig.copies.answer()
            await rig.counted(1)
        rig.then = lambda _: None
        rig.copies.answer()
        await rig.observer.wait_until_idle()
    assert [each["event"] for each in logs] == ["exchange_not_compared"]
    assert rig.copies.counted == ["uncompared canary", "compared int8"]
    assert ("verdict fail" in rig.done) is tipped
    assert rig.done[0] == "told 0"
    assert rig.done[-1] == "told 1"


# ---------------------------------------------------------------- in the order of the reports


async def test_a_late_copy_holds_up_what_is_learnt_after_it_and_no_comparison() -> None:
    async with running() as rig:
        rig.observe("canary")
        rig.observe("int8")
        rig.copies.answer(1)
        await rig.counted(1)
        assert (len(rig.calls), rig.copies.counted) == (1, ["compared int8"])
        assert rig.done == []
        rig.copies.answer()
        await rig.observer.wait_until_idle()
    assert rig.told_of == ["canary", "int8"]
    assert rig.observer.out_of_turn == 0


async def test_a_late_copy_holds_up_no_report_without_copies_and_no_other_route() -> None:
    async with running() as rig:
        rig.observe("canary")
        rig.observe()
        rig.observe("int8", route="another")
        rig.copies.answer(1)
        await rig.counted(1)
        assert rig.told_of == ["", "int8"]
        rig.copies.answer()
    assert rig.told_of == ["", "int8", "canary"]


async def test_who_waits_for_its_turn_holds_no_bodies() -> None:
    async with running() as rig:
        rig.observe("canary")
        rig.observe("int8")
        (waits, _) = rig.copies.offered[1]
        rig.copies.answer(1)
        await rig.counted(1)
        assert (waits.size_bytes, [each.answer.body for each in waits.calls]) == (0, [b""])


async def test_who_waits_for_its_turn_at_the_end_is_told_once_those_before_it_are_given_up() -> (
    None
):
    async with running() as rig:
        rig.observe("canary")
        for _ in range(3):
            rig.observe("int8")
        for _ in range(3):
            rig.copies.answer(-1)
        await rig.counted(3)
        assert rig.done == []
    assert rig.told_of == ["canary", "int8", "int8", "int8"]
    assert rig.done == ["told 0", "told 1", "told 1", "told 1"]


async def test_over_the_bound_a_copy_that_hangs_is_no_longer_waited_for() -> None:
    async with running() as rig:
        rig.observe("canary")
        for _ in range(WAITING_MAX):
            rig.observe("int8")
            rig.copies.answer(-1)
        await rig.counted(WAITING_MAX)
        assert rig.told_of == ["int8"] * WAITING_MAX
        rig.copies.answer()
        await rig.observer.wait_until_idle()
    assert rig.told_of[-1] == "canary"
    assert rig.observer.out_of_turn == 1


async def test_what_can_not_be_told_costs_none_of_those_that_waited_behind_it() -> None:
    def fail(observed: ObservedRequest) -> None:
        rig.told.append(observed)
        if rig.told_of[-1] == "int8":
            raise RuntimeError("no more ink")

    async with running() as rig:
        rig.tell = fail
        for shadow in ("canary", "int8", "canary"):
            rig.observe(shadow)
        with capture_logs() as logs:
            for answered, place in enumerate((1, 1, 0), 1):
                rig.copies.answer(place)
                await rig.counted(answered)
    assert rig.told_of == ["canary", "int8", "canary"]
    assert rig.done == ["told 1", "told 1"]
    assert [each["event"] for each in logs] == ["exchange_not_told"]

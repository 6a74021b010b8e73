"""Carrying out changes: order, bounds, callers who leave, disks that fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from coalmine.errors import InvalidRequest, NotReady, Overloaded, StaleRevision, Unavailable
from coalmine_router.control.conductor import Conductor
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.plan import ShadowShare, Wish, WishedWeights
from coalmine_router.control.readiness import Readiness
from coalmine_router.control.route_history import Change
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.clock import HandClock

ROUTE = Route(
    "digits",
    Match("digits"),
    (
        Variant("stable", "blue", weight_bp=10_000),
        Variant("canary", "blue"),
        Variant("int8", "blue"),
    ),
)
NOW_NS = 1_700_000_000_000_000_000


class Journal:
    """Keeps changes; while `gate` is closed, it keeps them back, and it fails with `error`."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.error: Exception | None = None
        self.unusable: Exception | None = None
        self.taken_up: Callable[[], None] = lambda: None

    async def ensure_usable(self) -> None:
        self.taken_up()
        if self.unusable is not None:
            raise self.unusable

    async def append(self, changes: Sequence[Change]) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.changes.extend(changes)


class Answers:
    """Says of each variant what it was told to; `asked` names those asked for, in order."""

    def __init__(self) -> None:
        self.not_ready: set[str] = set()
        self.asked: list[str] = []
        self.then: Callable[[], None] = lambda: None

    async def ask(
        self, table: RouteTable, route: str, variant: str, *, patient: bool = False
    ) -> Readiness:
        self.asked.append(variant)
        self.then()
        if variant in self.not_ready:
            return Readiness(ready=False, reason="it sleeps")
        return Readiness(ready=True)


class ConductorRig:
    def __init__(self, waiting_max: int = 8) -> None:
        self.journal = Journal()
        self.answers = Answers()
        self.current = CurrentTable(RouteTable(7, (Backend("blue", ("b:1",)),), (ROUTE,)))
        self.conductor = Conductor(
            self.current,
            self.journal,
            self.answers,
            HandClock(epoch_ns=NOW_NS),
            waiting_max=waiting_max,
        )

    async def weights(self, expect_revision: int = 0, **weights_bp: int) -> RouteTable:
        wish = Wish("digits", WishedWeights(weights_bp), "ada", "why", expect_revision)
        return await self.conductor.change(wish)

    @property
    def canary_bp(self) -> int:
        return self.current.table.route("digits").weights_bp["canary"]


@asynccontextmanager
async def running(rig: ConductorRig) -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.conductor.run())
        yield group
        task.cancel()


async def test_a_change_is_in_force_only_once_it_is_written() -> None:
    rig = ConductorRig()
    rig.journal.gate.clear()
    async with running(rig) as group:
        change = group.create_task(rig.weights(canary=100))
        await rig.journal.entered.wait()
        assert rig.canary_bp == 0
        rig.journal.gate.set()
        table = await change

    assert table is rig.current.table
    assert (table.revision, rig.canary_bp) == (8, 100)
    (written,) = rig.journal.changes
    assert (written.revision, written.at_ns, written.actor) == (8, NOW_NS, "ada")


async def test_a_change_that_cannot_be_written_changes_nothing_and_the_next_one_may() -> None:
    rig = ConductorRig()
    rig.journal.error = Unavailable("disk full")
    async with running(rig):
        with pytest.raises(Unavailable, match="disk full"):
            await rig.weights(canary=100)
        assert rig.current.table.revision == 7
        rig.journal.error = None
        assert (await rig.weights(canary=100)).revision == 8


async def test_a_change_while_there_is_no_state_is_refused_with_the_reason() -> None:
    rig = ConductorRig()
    rig.journal.unusable = Unavailable("control.db is newer")
    async with running(rig):
        with pytest.raises(Unavailable, match=r"control\.db is newer"):
            await rig.weights(canary=100)
    assert rig.current.table.revision == 7


async def test_a_change_that_finds_the_state_back_is_made_on_what_the_state_says() -> None:
    rig = ConductorRig()
    saved = replace(rig.current.table, revision=20)
    rig.journal.taken_up = lambda: rig.current.swap(saved)
    async with running(rig):
        assert (await rig.weights(canary=100)).revision == 21
        with pytest.raises(StaleRevision):
            await rig.weights(expect_revision=7, canary=200)


async def test_a_caller_who_leaves_in_the_middle_does_not_part_table_and_journal() -> None:
    rig = ConductorRig()
    rig.journal.gate.clear()
    async with running(rig) as group:
        caller = group.create_task(rig.weights(canary=100))
        await rig.journal.entered.wait()
        caller.cancel()
        await asyncio.wait([caller])
        rig.journal.gate.set()
        await rig.weights(int8=5)

    assert [change.revision for change in rig.journal.changes] == [8, 9]
    assert rig.current.table.route("digits").weights_bp == {
        "stable": 9_895,
        "canary": 100,
        "int8": 5,
    }


async def test_a_change_whose_caller_left_while_it_waited_is_not_made() -> None:
    rig = ConductorRig()
    rig.journal.gate.clear()
    async with running(rig) as group:
        first = group.create_task(rig.weights(canary=100))
        await rig.journal.entered.wait()
        second = group.create_task(rig.weights(canary=200))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        rig.journal.gate.set()
        await first
        await rig.weights(int8=5)

    assert [change.after.weights_bp["canary"] for change in rig.journal.changes] == [100, 100]


async def test_a_variant_that_gains_must_be_ready() -> None:
    rig = ConductorRig()
    rig.answers.not_ready = {"canary"}
    async with running(rig):
        with pytest.raises(
            NotReady, match="route 'digits': variant 'canary' is not ready: it sleeps"
        ):
            await rig.weights(canary=100)

    assert rig.journal.changes == []


async def test_stable_is_never_asked_so_an_abort_always_works() -> None:
    rig = ConductorRig()
    async with running(rig):
        await rig.weights(canary=10_000)
        rig.answers.asked.clear()
        rig.answers.not_ready = {"stable", "canary", "int8"}
        await rig.weights(stable=10_000, canary=0)

    assert rig.answers.asked == []
    assert rig.canary_bp == 0


async def test_a_shadow_that_grows_is_asked_and_one_that_shrinks_is_not() -> None:
    rig = ConductorRig()
    async with running(rig):
        for share_bp in (500, 400, 0):
            await rig.conductor.change(Wish("digits", ShadowShare("int8", share_bp), "ada"))

    assert rig.answers.asked == ["int8"]
    assert [change.action for change in rig.journal.changes] == ["shadow"] * 3


async def test_a_variant_that_came_to_gain_meanwhile_is_asked_before_the_change() -> None:
    rig = ConductorRig()
    async with running(rig) as group:
        await rig.weights(canary=500)
        rig.answers.asked.clear()
        rig.journal.entered.clear()
        rig.journal.gate.clear()
        # The first takes all from canary; the second would lower it, and now raises it.
        first = group.create_task(rig.weights(canary=0))
        await rig.journal.entered.wait()
        second = group.create_task(rig.weights(canary=300))
        await asyncio.sleep(0)
        assert rig.answers.asked == []
        rig.journal.gate.set()
        await first
        await second

    assert rig.answers.asked == ["canary"]
    assert rig.canary_bp == 300


async def test_a_revision_that_goes_stale_while_backends_are_asked_aborts() -> None:
    rig = ConductorRig()
    rig.answers.then = lambda: rig.current.swap(rig.current.table.replacing(ROUTE))
    async with running(rig):
        with pytest.raises(StaleRevision, match="route 'digits' is at revision 8, not 7"):
            await rig.weights(expect_revision=7, canary=100)

    assert rig.journal.changes == []


async def test_an_unchanged_split_is_not_written() -> None:
    rig = ConductorRig()
    before = rig.current.table
    async with running(rig):
        assert await rig.weights(canary=0) is before

    assert rig.journal.changes == []


async def test_a_wrong_wish_fails_before_any_backend_is_asked() -> None:
    rig = ConductorRig()
    async with running(rig):
        with pytest.raises(InvalidRequest):
            await rig.weights(canary=10_001)

    assert rig.answers.asked == []


async def test_an_unexpected_error_is_the_callers_and_does_not_end_the_loop() -> None:
    rig = ConductorRig()
    rig.journal.error = RuntimeError("bug")
    async with running(rig):
        with pytest.raises(RuntimeError, match="bug"):
            await rig.weights(canary=100)
        rig.journal.error = None
        assert (await rig.weights(canary=100)).revision == 8


async def test_more_waiting_changes_than_allowed_are_turned_away_and_counted() -> None:
    rig = ConductorRig(waiting_max=1)
    rig.journal.gate.clear()
    async with running(rig) as group:
        allowed = [group.create_task(rig.weights(canary=1))]
        await rig.journal.entered.wait()
        allowed.append(group.create_task(rig.weights(canary=2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="1 changes are waiting"):
            await rig.weights(canary=3)
        rig.journal.gate.set()
        await asyncio.wait(allowed)

    assert rig.conductor.turned_away == 1


async def test_at_the_end_those_who_wait_hear_that_the_process_stops() -> None:
    rig = ConductorRig()
    rig.journal.gate.clear()

    async def told(weight_bp: int) -> str:
        with pytest.raises(Unavailable) as caught:
            await rig.weights(canary=weight_bp)
        return str(caught.value)

    async with asyncio.TaskGroup() as group:
        async with running(rig):
            waiting = [group.create_task(told(weight_bp)) for weight_bp in (1, 2, 3)]
            await rig.journal.entered.wait()
        waiting.append(group.create_task(told(4)))

    under_way, *others = [each.result() for each in waiting]
    assert under_way.endswith("the history tells whether the change was made")
    assert set(others) == {"the router's control process is stopping"}

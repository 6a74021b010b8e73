"""Readiness, asked in the background."""

import asyncio
import itertools

from structlog.testing import capture_logs
from structlog.typing import EventDict

from coalmine_router.control.current import CurrentTable
from coalmine_router.control.readiness import Readiness
from coalmine_router.control.readiness_cache import ReadinessCache
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant


def table_of(variants: int) -> RouteTable:
    names = ["stable", *(f"v{number}" for number in range(1, variants))]
    each = tuple(Variant(name, "blue", weight_bp=10_000 * (name == "stable")) for name in names)
    return RouteTable(1, (Backend("blue", ("b:1",)),), (Route("digits", Match("digits"), each),))


class Answers:
    """Says yes, except of `sleeping`; remembers how many questions were open at once."""

    def __init__(self) -> None:
        self.sleeping = {"v1"}
        self.open = 0
        self.open_max = 0

    async def ask(
        self, table: RouteTable, route: str, variant: str, *, patient: bool = False
    ) -> Readiness:
        assert not patient
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return Readiness(ready=variant not in self.sleeping, reason="it sleeps")


async def test_before_it_asked_nothing_is_ready() -> None:
    cache = ReadinessCache(CurrentTable(table_of(1)), Answers())

    assert cache.of("digits", "stable") == Readiness(ready=False, reason="not asked yet")


async def test_each_variant_has_the_last_answer() -> None:
    answers = Answers()
    cache = ReadinessCache(CurrentTable(table_of(2)), answers)
    await cache.refresh()
    first = cache.of("digits", "v1")
    answers.sleeping = set()
    await cache.refresh()

    assert first == Readiness(ready=False, reason="it sleeps")
    assert cache.of("digits", "v1").ready
    assert cache.of("digits", "stable").ready


async def test_at_most_sixteen_questions_are_open_at_once() -> None:
    answers = Answers()
    await ReadinessCache(CurrentTable(table_of(32)), answers).refresh()

    assert answers.open_max == 16


async def test_it_asks_again_until_it_is_cancelled() -> None:
    answers = Answers()
    cache = ReadinessCache(CurrentTable(table_of(2)), answers, period_s=0)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(cache.run())
        while not cache.of("digits", "stable").ready:
            await asyncio.sleep(0)
        answers.sleeping = {"stable"}
        while cache.of("digits", "stable").ready:
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
    assert task.cancelled()


async def test_asking_takes_at_most_a_quarter_of_the_time() -> None:
    loop, asked_s = asyncio.get_running_loop(), list[float]()

    class Slow(Answers):
        async def ask(
            self, table: RouteTable, route: str, variant: str, *, patient: bool = False
        ) -> Readiness:
            asked_s.append(loop.time())
            answered = asyncio.Event()
            loop.call_later(0.02, answered.set)
            await answered.wait()
            return Readiness(ready=True)

    cache = ReadinessCache(CurrentTable(table_of(1)), Slow(), period_s=0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(cache.run())
        while len(asked_s) < 3:
            await asyncio.sleep(0)
        task.cancel()
    gaps = [after - before for before, after in itertools.pairwise(asked_s)]
    assert min(gaps) >= 4 * 0.02 - 0.001


def told(logs: list[EventDict]) -> list[tuple[object, ...]]:
    keys = ("log_level", "event", "variant", "reason")
    return [tuple(each.get(key) for key in keys) for each in logs]


async def test_only_a_change_of_readiness_is_logged_with_its_reason() -> None:
    answers = Answers()
    cache = ReadinessCache(CurrentTable(table_of(2)), answers)
    with capture_logs() as logs:
        for answers.sleeping in ({"v1"}, set[str](), set[str](), {"v1"}, {"v1"}):
            await cache.refresh()
    assert told(logs) == [
        ("info", "variant_ready", "stable", None),
        ("info", "variant_ready", "v1", None),
        ("warning", "variant_ready", "v1", "it sleeps"),
    ]


async def test_a_stable_that_is_lost_is_an_error_once_an_outage() -> None:
    answers = Answers()
    cache = ReadinessCache(CurrentTable(table_of(1)), answers)
    lost, well = {"stable"}, set[str]()
    with capture_logs() as logs:
        for answers.sleeping in (well, lost, lost, well, lost):
            await cache.refresh()
    assert (
        told(logs)
        == [
            ("info", "variant_ready", "stable", None),
            ("error", "reference_lost", "stable", "it sleeps"),
        ]
        * 2
    )


async def test_a_stable_that_is_not_there_at_the_start_is_lost_too() -> None:
    answers = Answers()
    answers.sleeping = {"stable"}
    cache = ReadinessCache(CurrentTable(table_of(1)), answers)
    with capture_logs() as logs:
        await cache.refresh()
        await cache.refresh()
    assert told(logs) == [("error", "reference_lost", "stable", "it sleeps")]

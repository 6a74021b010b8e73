"""The table in force, and those who follow it."""

import asyncio

from coalmine_router.control.current import CurrentTable
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant

ROUTE = Route("digits", Match("digits"), (Variant("stable", "blue", weight_bp=10_000),))
TABLE = RouteTable(1, (Backend("blue", ("b:1",)),), (ROUTE,))


async def test_who_has_not_seen_the_table_does_not_wait() -> None:
    current = CurrentTable(TABLE)
    current.swap(newer := TABLE.replacing(ROUTE))

    assert await current.wait_for_other(TABLE) is newer


async def test_a_follower_may_miss_tables_but_never_the_last() -> None:
    current = CurrentTable(TABLE)
    seen: list[int] = []

    async def follow() -> None:
        table = TABLE
        while table.revision < 6:
            table = await current.wait_for_other(table)
            seen.append(table.revision)

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        await asyncio.sleep(0)
        for _ in range(5):
            current.swap(current.table.replacing(ROUTE))

    assert seen == [6]


async def test_all_who_wait_are_woken() -> None:
    current = CurrentTable(TABLE)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(current.wait_for_other(TABLE)) for _ in range(10)]
        await asyncio.sleep(0)
        current.swap(TABLE.replacing(ROUTE))

    assert {each.result().revision for each in waiting} == {2}

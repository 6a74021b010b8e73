"""Open streams: bounded, and ended from outside without an error."""

import asyncio

import pytest

from coalmine.errors import Overloaded, Unavailable
from coalmine_router.open_streams import OpenStreams


async def stay(streams: OpenStreams, opened: asyncio.Event, left: list[str]) -> None:
    async with streams.open():
        opened.set()
        await asyncio.Event().wait()
    left.append("in peace")


async def test_the_end_of_all_leaves_every_body_and_lets_no_other_in() -> None:
    streams = OpenStreams("Watch", open_max=3)
    left: list[str] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            opened = asyncio.Event()
            group.create_task(stay(streams, opened, left))
            await opened.wait()
        streams.end_all()
        streams.end_all()

    assert left == ["in peace"] * 3
    with pytest.raises(Unavailable, match="Watch: the router's control process is stopping"):
        await stay(streams, asyncio.Event(), left)


async def test_a_body_may_leave_by_itself_even_from_another_task() -> None:
    streams = OpenStreams("Watch", open_max=1)
    async with asyncio.TaskGroup() as group, streams.open() as end:
        other = group.create_task(asyncio.to_thread(lambda: None))
        other.add_done_callback(lambda _: end())
        await asyncio.Event().wait()
    assert other.done()

    async with streams.open():
        pass
    assert streams.turned_away == 0


async def test_one_over_the_bound_is_turned_away_and_counted() -> None:
    streams = OpenStreams("Watch", open_max=1)
    async with streams.open():
        with pytest.raises(Overloaded, match="1 streams are open"):
            async with streams.open():
                raise AssertionError

    assert streams.turned_away == 1
    async with streams.open():
        pass


async def test_a_timeout_of_the_body_is_its_own_affair() -> None:
    streams = OpenStreams("Watch", open_max=1)
    with pytest.raises(TimeoutError, match="mine"):
        async with streams.open():
            raise TimeoutError("mine")


async def test_a_cancelled_body_stays_cancelled() -> None:
    streams = OpenStreams("Watch", open_max=1)
    opened = asyncio.Event()
    left: list[str] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(stay(streams, opened, left))
        await opened.wait()
        task.cancel()

    assert task.cancelled()
    assert left == []

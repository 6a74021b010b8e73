"""The route table in force, and word of each new one."""

import asyncio

from coalmine_router.table import RouteTable


class News:
    """Wakes all who wait, each time that there is something to know. Nothing is queued."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wake everybody who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next `tell`. Look first, then wait: what was told before is gone."""
        await self._event.wait()


class CurrentTable:
    """Holds the newest table. Whoever follows it may miss some in between, never the last."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._news = News()

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table

    def swap(self, table: RouteTable) -> None:
        """Put `table` in force and tell those who follow."""
        self._table = table
        self._news.tell()

    async def other_than(self, seen: RouteTable) -> RouteTable:
        """Return the table in force, once it is not `seen`."""
        while self._table is seen:
            await self._news.wait()
        return self._table

"""Tells those who wait that something has changed."""

import asyncio


class ChangeSignal:
    """Wakes all who wait; they then read what has changed. Nothing is queued."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def wake_all(self) -> None:
        """Wake all who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next `wake_all`. Read first, then wait: an earlier one is gone."""
        await self._next.wait()

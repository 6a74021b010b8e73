"""That something has changed, for whoever waits for it."""

import asyncio


class ChangeSignal:
    """Wakes all who wait when it is told; what it is about, they look up. Nothing is queued."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Wake whoever waits now."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Return when it is told next. Look first, then wait: what was told before is gone."""
        await self._next.wait()

"""Parts that run as long as a block does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(run: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let `run` run: it has begun when the block does, and is cancelled at the block's end."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run)
        await asyncio.sleep(0)  # it begins
        try:
            yield
        finally:
            task.cancel()

"""Waiting for what nobody tells of: looked at often, and given up in time."""

import asyncio
import time
from collections.abc import Callable


def until(reached: Callable[[], bool], timeout_s: float) -> None:
    """Return when `reached` is true; fail the test where it isn't within `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < give_up, f"not reached within {timeout_s} s"
        time.sleep(0.02)


async def eventually(reached: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return when `reached` is true, while the loop goes on; fail the test where it isn't."""
    async with asyncio.timeout(timeout_s):
        while not reached():
            await asyncio.sleep(0.001)

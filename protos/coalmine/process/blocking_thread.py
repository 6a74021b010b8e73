"""Runs a blocking call in a thread while the loop goes on."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def run_in_thread(blocking: Callable[[], Result]) -> Result:
    """Return what `blocking` returns, or raise what it raises.

    On a daemon thread of its own, unlike asyncio.to_thread: a read from a mount that is dead must
    not hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():  # given up
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only beside an error

    def run_and_settle() -> None:
        try:
            outcome: tuple[Result | None, BaseException | None] = (blocking(), None)
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run_and_settle, name="blocking", daemon=True).start()
    return await done

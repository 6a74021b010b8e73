"""gRPC's operations, let come to their own end: one that is cancelled half-way is never freed.

gRPC keeps what it has laid out for a batch of operations until somebody takes in its result
(grpc/grpc#43360). Where the task that waits for it is cancelled, nobody does: 1 kB stays of a unary
call, 0.1 kB of a read, for as long as the process lives. Ended from below they give it back.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

# Private names of grpc.aio: what a call waits for in a task, and how it ends without cancelling it.
_TASK: Final = "_invocation_task"
_END: Final = "_cancel"

_GIVEN_UP: Final = "nobody waits for it any more"


def shield_operation(operation: Awaitable[Result]) -> "asyncio.Future[Result]":
    """Return a future of `operation`; cancelled, it leaves the operation to the end of its call."""
    return asyncio.shield(operation)


async def answer_to(call: Any) -> Any:
    """Return what `await call` does, of a unary call; cancelled, it gives the call up as a whole.

    A gRPC that has other names for its own parts is waited for as usual.
    """
    task = getattr(call, _TASK, None)
    if task is None:
        return await call
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel_call(call)
        raise
    return await call  # which holds the result by now, or what went wrong


def is_given_up() -> bool:
    """Return whether it is this task that was cancelled, not a call that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def cancel_call(call: Any) -> None:
    """Cancel a call, if it isn't over; what waits for its operations hears of it from gRPC."""
    end = getattr(call, _END, None)
    if end is None:
        call.cancel()
    else:
        end(_GIVEN_UP)

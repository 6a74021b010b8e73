"""Whether a router says anything while it is asked something that may take long."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

import grpc

# With the program's own start, it is said within three seconds that nobody answers.
SILENT_S: Final = 2.0
# One that had answered is believed to live for longer: a change may be under way on a busy machine.
SILENT_AGAIN_S: Final = 5.0

_EACH_S: Final = 0.5
# grpc.health.v1, of which no library is needed for a request without fields.
_CHECK: Final = "/grpc.health.v1.Health/Check"

Found = TypeVar("Found")


class Silent(Exception):
    """The router says nothing any more, or never did."""

    def __init__(self, silent_s: float) -> None:
        super().__init__(silent_s)
        self.silent_s = silent_s


async def unless_silent(
    channel: grpc.aio.Channel, answer: Awaitable[Found], *, is_patient: bool
) -> Found:
    """Return the answer, however long it takes a router that says that it lives.

    Raises Silent where it says nothing for SILENT_S at first, SILENT_AGAIN_S later; patient, only
    until it said something.
    """
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_outcome(answer))
        silent = tasks.create_task(_silence(channel, is_patient=is_patient))
        await asyncio.wait({asked, silent}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        silent.cancel()
    if asked.cancelled():
        raise Silent(silent.result())
    found = asked.result()
    if isinstance(found, BaseException):
        raise found
    return found


async def _outcome(answer: Awaitable[Found]) -> Found | Exception:
    """Return the answer, or what it raised: it is raised again where it means something."""
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 - the caller's
        return error


async def _silence(channel: grpc.aio.Channel, *, is_patient: bool) -> float:
    """Return once the router has said nothing for so many seconds."""
    silent_s = SILENT_S
    check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
    while True:
        try:
            await check(b"", timeout=silent_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return silent_s
            # Any other is an answer too; where nobody listens, who asked hears that at once.
        if is_patient:
            await asyncio.Event().wait()
        silent_s = SILENT_AGAIN_S
        await asyncio.sleep(_EACH_S)

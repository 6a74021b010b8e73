"""Whether a router is alive while a call to it may take long."""

import asyncio
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, TypeVar

import grpc

# Three seconds after a line was typed, it has said that nobody answers. A program that was slow to
# start, on a busy machine, waits for a moment all the same.
_SINCE_START_S: Final = 2.7
_AT_LEAST_S: Final = 1.5
_USUAL_START_S: Final = 0.7
# One that had answered is believed to live for longer: a change may be under way on a busy machine.
SILENT_AGAIN_S: Final = 5.0

_EACH_S: Final = 0.5
# grpc.health.v1, of which no library is needed for a request without fields.
_CHECK: Final = "/grpc.health.v1.Health/Check"

Found = TypeVar("Found")


class Silent(Exception):
    """The router no longer answers, or never did."""

    def __init__(self, silent_s: float) -> None:
        super().__init__(silent_s)
        self.silent_s = silent_s


async def await_unless_silent(
    channel: grpc.aio.Channel, answer: Awaitable[Found], *, is_patient: bool
) -> Found:
    """Return the answer, however long it takes, as long as the router's health check answers.

    Raises Silent if the check gets no answer at first, or later none for SILENT_AGAIN_S. With
    `is_patient`, only the first check counts.
    """
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_await_outcome(answer))
        silent = tasks.create_task(_wait_for_silence(channel, is_patient=is_patient))
        await asyncio.wait({asked, silent}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        silent.cancel()
    if asked.cancelled():
        raise Silent(silent.result())
    found = asked.result()
    if isinstance(found, BaseException):
        raise found
    return found


async def _await_outcome(answer: Awaitable[Found]) -> Found | Exception:
    """Return the answer, or the error that it raised, for the caller to raise."""
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 - the caller's
        return error


async def _wait_for_silence(channel: grpc.aio.Channel, *, is_patient: bool) -> float:
    """Return once the router has been silent for too long: for how many seconds."""
    silent_s = first_answer_within_s()
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


def first_answer_within_s() -> float:
    """Return how long the first answer of a router may take."""
    return max(_AT_LEAST_S, _SINCE_START_S - _process_age_s())


def _process_age_s() -> float:
    """Return the age of this process; a guess where the system doesn't tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began_s
    except (OSError, AttributeError):
        return _USUAL_START_S

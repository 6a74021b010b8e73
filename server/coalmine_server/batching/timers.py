"""Timers of the loop."""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from coalmine.clock import Clock


class TimerHandle(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it has gone off."""
        ...


class Timer(Protocol):
    """Calls back at a time."""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call `callback` on the loop at a monotonic time."""
        ...


class LoopTimer:
    """Timers of the running loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call `callback` at `when_ns`, never before it: uvloop counts whole milliseconds."""
        ahead_ms = max(0, math.ceil((when_ns - self._clock.monotonic_ns()) / 1_000_000))
        return self._loop.call_later(ahead_ms / 1_000, callback)


class Alarm:
    """One timer for the soonest of many moments.

    It still rings when its moment no longer matters, so `callback` may find nothing to do: a timer
    for each request would cost more than all else that the queue does for it.
    """

    def __init__(self, timer: Timer, callback: Callable[[], None]) -> None:
        self._timer = timer
        self._callback = callback
        self._handle: TimerHandle | None = None
        self._when_ns = 0

    def ring_by(self, when_ns: int) -> None:
        """Call back at `when_ns` at the latest."""
        if self._handle is not None:
            if self._when_ns <= when_ns:
                return
            self._handle.cancel()
        self._handle, self._when_ns = self._timer.call_at(when_ns, self._ring), when_ns

    def turn_off(self) -> None:
        """Call back no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        self._callback()

"""The clock of the tests, and the time of their loop: both move as a test says."""

import asyncio


class HandClock:
    """Time that a test moves, by `now_ns`.

    `epoch_ns` is what the wall shows at 0. Each reading first moves the time on by `step_ns`.
    """

    def __init__(self, now_ns: int = 0, *, epoch_ns: int = 0, step_ns: int = 0) -> None:
        self.now_ns = now_ns
        self._epoch_ns = epoch_ns
        self._step_ns = step_ns

    def wall_ns(self) -> int:
        return self._epoch_ns + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        self.now_ns += self._step_ns
        return self.now_ns


class LoopTime:
    """The running loop's time, by which its timers go off: a test moves it on, and nobody waits."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead_s = 0.0
        of_machine = loop.time
        loop.time = lambda: of_machine() + self._ahead_s  # type: ignore[method-assign]  # of this loop alone

    async def advance(self, by_s: float) -> None:
        """Let so much time pass. The timers that are due have gone off when this returns."""
        self._ahead_s += by_s
        for _ in range(3):  # the loop looks at its timers, runs them, and runs what they wake
            await asyncio.sleep(0)

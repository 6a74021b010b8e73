"""The one clock of the tests: time stands still, and moves only as a test says."""


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

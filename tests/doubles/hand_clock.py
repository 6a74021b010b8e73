"""A clock that stands still until it is told otherwise."""


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

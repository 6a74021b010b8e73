"""Time, as an argument: app.py hands in the real one, a test its own."""

import time
from typing import Protocol


class Clock(Protocol):
    """The time that a part reads."""

    def wall_ns(self) -> int:
        """Return nanoseconds since the epoch; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

"""When a client makes a call again that found no server."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SAVED_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How a client makes calls again that fail with UNAVAILABLE, within the call's deadline.

    There are at most `attempts` calls in all. Before each is a random wait of up to `first_s`,
    doubled each time up to `longest_s`. Over time each call allows at most `budget` further ones
    (and ten at once), so that a server in trouble doesn't get several times as many calls.
    """

    attempts: int = 4
    first_s: float = 0.05
    longest_s: float = 1.0
    budget: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_s, self.longest_s, self.budget) < 0:
            raise ValueError(f"{self}: at least one attempt, and nothing below 0")


class RetryBudget:
    """What one client's retries may still cost; shared by its threads."""

    def __init__(self, retries: Retries, draw: Callable[[], float] = random.random) -> None:
        self._retries = retries
        self._draw = draw
        self._saved = _SAVED_MAX
        self._lock = threading.Lock()

    def add_call(self) -> None:
        """Count a first call, which pays for a part of a further one."""
        with self._lock:
            self._saved = min(_SAVED_MAX, self._saved + self._retries.budget)

    def take_wait_s(self, attempt: int, left_s: float | None) -> float | None:
        """Return how long to wait before call number `attempt` + 1, and pay for it; None: don't.

        `left_s` is what is left of the deadline; None: there is none.
        """
        longest_s = min(self._retries.longest_s, self._retries.first_s * 2.0 ** (attempt - 1))
        wait_s = longest_s * self._draw()
        is_late = left_s is not None and wait_s >= left_s
        with self._lock:
            if attempt >= self._retries.attempts or is_late or self._saved < 1:
                return None
            self._saved -= 1
        return wait_s

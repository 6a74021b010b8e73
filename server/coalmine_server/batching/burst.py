"""What one worker runs from one wake-up to the next, shared by its thread and the loop."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from coalmine.clock import Clock
from coalmine_server.batching.request_queue import Batch, Pending, RequestQueue
from coalmine_server.runtime.execution import Ran
from coalmine_server.signature import Checked


class Burst:
    """Batches that one worker runs, one after another, each taken when the worker comes to it.

    The worker's thread takes them and adds what became of each; the loop collects that in the same
    order. Each does one step at a time to a deque, so there is no lock. `told_ns` is when the loop
    began the burst, or was last told of it; `has_begun` is so once the worker came to it.
    """

    __slots__ = ("_added", "_begun", "_clock", "_take", "has_begun", "told_ns")

    def __init__(self, take: Callable[[], Sequence[Pending]], clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._begun: deque[tuple[Batch, Sequence[Pending]]] = deque()
        self._added: deque[Ran] = deque()
        self.told_ns = clock.monotonic_ns()
        self.has_begun = False

    @classmethod
    def of_batch(cls, requests: Sequence[Pending], clock: Clock) -> Self:
        """Return a burst of one batch."""
        batches = [requests]
        return cls(lambda: batches.pop() if batches else (), clock)

    @classmethod
    def of_waiting(cls, waiting: RequestQueue, clock: Clock) -> Self:
        """Return a burst of requests that wait, each alone, until there is no further one."""
        return cls(partial(_one_of, waiting, clock), clock)

    def next_batch(self) -> Sequence[Checked]:
        """Return what to run now; nothing where the burst is over. The worker's thread asks."""
        requests = self._take()
        self.has_begun = True
        if requests:
            self._begun.append((Batch.of(requests, self._clock.monotonic_ns()), requests))
        return [each.request for each in requests]

    def add(self, ran: Ran) -> None:
        """Take what became of the last batch. The worker's thread brings it."""
        self._added.append(ran)

    def collect(self) -> list[tuple[Batch, Sequence[Pending], Ran]]:
        """Return the batches that have ended since the last time. The loop asks."""
        found = []
        while self._added:
            batch, requests = self._begun.popleft()
            found.append((batch, requests, self._added.popleft()))
        return found


def _one_of(waiting: RequestQueue, clock: Clock) -> Sequence[Pending]:
    while (pending := waiting.take_one(clock.monotonic_ns())) is not None:
        if not pending.future.done():  # else it was cancelled a moment ago
            return (pending,)
    return ()

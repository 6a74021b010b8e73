"""A worker's runs from one wake-up to the next, shared by its thread and the loop."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from coalmine.clock import Clock
from coalmine_server.batching.request_queue import Batch, PendingRequest, RequestQueue
from coalmine_server.runtime.execution import BatchRun
from coalmine_server.signature import CheckedRequest


class Burst:
    """Batches that one worker runs, one after another, each taken when the worker comes to it.

    The worker's thread takes them and adds each result. The loop collects the results in the same
    order. Each does one step at a time to a deque, so there is no lock. `notified_ns` is when the
    loop began the burst, or was last notified of it. The worker sets `has_begun`.
    """

    __slots__ = ("_added", "_begun", "_clock", "_take", "has_begun", "notified_ns")

    def __init__(self, take: Callable[[], Sequence[PendingRequest]], clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._begun: deque[tuple[Batch, Sequence[PendingRequest]]] = deque()
        self._added: deque[BatchRun] = deque()
        self.notified_ns = clock.monotonic_ns()
        self.has_begun = False

    @classmethod
    def of_batch(cls, requests: Sequence[PendingRequest], clock: Clock) -> Self:
        """Return a burst of one batch."""
        batches = [requests]
        return cls(lambda: batches.pop() if batches else (), clock)

    @classmethod
    def of_waiting(cls, waiting: RequestQueue, clock: Clock) -> Self:
        """Return a burst of waiting requests, each alone, until no more wait."""
        return cls(partial(_take_uncancelled, waiting, clock), clock)

    def take_batch(self) -> Sequence[CheckedRequest]:
        """Take the requests to run now; none at the end. Called on the worker's thread."""
        requests = self._take()
        self.has_begun = True
        if requests:
            self._begun.append((Batch.of(requests, self._clock.monotonic_ns()), requests))
        return [each.request for each in requests]

    def add_run(self, ran: BatchRun) -> None:
        """Add the result of the last batch. Called on the worker's thread."""
        self._added.append(ran)

    def collect_ended(self) -> list[tuple[Batch, Sequence[PendingRequest], BatchRun]]:
        """Take the batches that have ended since the last time. Called on the loop."""
        found = []
        while self._added:
            batch, requests = self._begun.popleft()
            found.append((batch, requests, self._added.popleft()))
        return found


def _take_uncancelled(waiting: RequestQueue, clock: Clock) -> Sequence[PendingRequest]:
    while (pending := waiting.take_one(clock.monotonic_ns())) is not None:
        if not pending.future.done():  # else it was cancelled a moment ago
            return (pending,)
    return ()

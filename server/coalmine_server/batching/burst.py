"""What one worker runs from one wake-up to the next, shared by its thread and the loop."""

from collections import deque
from collections.abc import Callable, Sequence

from coalmine_server.batching.waiting import Batch, Pending
from coalmine_server.runtime.execution import Ran
from coalmine_server.signature import Checked


class Burst:
    """Batches that one worker runs, one after another: `first`, then what `take_next` gives.

    The worker's thread takes each batch when it comes to it, and adds what became of it. The loop
    collects that in the same order. Each does one step at a time to a deque, so there is no lock.
    `told_ns` is when the loop began it, or was last told of it.
    """

    __slots__ = ("_added", "_begun", "_first", "_now_ns", "_take_next", "told_ns")

    def __init__(
        self,
        first: Sequence[Pending],
        take_next: Callable[[int], Pending | None] | None,
        now_ns: Callable[[], int],
    ) -> None:
        self._first: Sequence[Pending] | None = first
        self._take_next = take_next
        self._now_ns = now_ns
        self._begun: deque[tuple[Batch, Sequence[Pending]]] = deque()
        self._added: deque[Ran] = deque()
        self.told_ns = now_ns()

    def next_batch(self) -> Sequence[Checked]:
        """Return what to run now; nothing where the burst is over. The worker's thread asks."""
        requests = self._next_requests()
        if requests:
            self._begun.append((Batch.of(requests, self._now_ns()), requests))
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

    def _next_requests(self) -> Sequence[Pending]:
        first, self._first = self._first, None
        if first is not None:
            return first
        while self._take_next is not None:
            pending = self._take_next(self._now_ns())
            if pending is None:
                break
            if not pending.future.done():  # else it was cancelled a moment ago
                return (pending,)
        return ()

"""Examples that wait to be written. They are chosen in memory, so that the disk gets few of many.

A canary that fails makes more examples in a second than anybody reads in a day. The most valuable
of those that wait are written: a bounded number a second for each route, and bounded bytes for all.
Where too many wait, the least valuable are dropped. For use by one event loop.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.observer.examples.allowance import Allowance
from coalmine_router.observer.examples.rank import Rank, numbers_by_value, rank_of

# After a pause, so many seconds' examples are written at once: the first of a failure matter most.
_BURST_S: Final = 30
# SQLite writes whole pages, of the table and of each index. A large example fills pages of its own;
# small ones cost less when many are written together.
_LARGE_BYTES: Final = 32 * 1024
# A full queue is cut to this share of its bound, so that it is sorted once for many examples.
_LEFT: Final = 3 / 4
# What each record takes beside its size, in memory and in the file with its indexes: about a page.
_OVERHEAD_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Example:
    """A mismatch that may be kept. The cost is its bytes in memory and on disk."""

    record: pb.Mismatch
    rank: Rank
    cost: int


@dataclass(frozen=True, slots=True)
class WaitingLimits:
    """How many may wait, of a route and of all, and how much is written. Bytes are costs."""

    route_examples_max: int = 512
    route_bytes_max: int = 8 * 1024 * 1024
    bytes_max: int = 32 * 1024 * 1024
    written_bytes_a_second: int = 512 * 1024
    written_bytes_burst: int = 4 * 1024 * 1024
    owed_bytes_max: int = 32 * 1024 * 1024


class _RouteQueue:
    """The waiting examples of one route, in the order of arrival."""

    def __init__(self, kept: KeptConfig, now_ns: int) -> None:
        burst = kept.per_second * _BURST_S
        self.kept = kept
        self.allowance = Allowance(kept.per_second, burst, now_ns, owed_max=1)
        self.examples: dict[int, Example] = {}
        self.cost = 0

    def add(self, example: Example) -> None:
        self.examples[example.rank.number] = example
        self.cost += example.cost

    def replace(self, examples: Iterable[Example]) -> None:
        self.examples = {each.rank.number: each for each in examples}
        self.cost = sum(each.cost for each in self.examples.values())

    def kept_by_value(self) -> list[Example]:
        """Return the examples that would be kept, the most valuable first."""
        ranks = (each.rank for each in self.examples.values())
        return [self.examples[number] for number in numbers_by_value(ranks, self.kept)]

    def is_due(self) -> bool:
        """Return whether the examples are large, or as many may be written as ever at once."""
        is_large = self.cost >= _LARGE_BYTES * len(self.examples)
        return is_large or self.allowance.has_all()

    def most_valuable(self, examples_max: float, cost_max: float) -> list[Example]:
        chosen: list[Example] = []
        cost = 0
        for each in self.kept_by_value():
            if len(chosen) < examples_max and cost + each.cost <= cost_max:
                chosen.append(each)
                cost += each.cost
        return chosen


class WaitingExamples:
    """A bounded queue for each route. Examples over a bound are dropped and counted."""

    def __init__(self, limits: WaitingLimits, now_ns: int) -> None:
        self._limits = limits
        self._queues: dict[str, _RouteQueue] = {}
        self._bytes = Allowance(
            limits.written_bytes_a_second,
            limits.written_bytes_burst,
            now_ns,
            owed_max=limits.owed_bytes_max,
        )
        self._cost = 0
        self._arrivals = 0
        # `passed_over`: others took their place. `refused`: they were too large to wait at all.
        self.passed_over = 0
        self.refused = 0

    def add(self, record: pb.Mismatch, kept: KeptConfig, now_ns: int) -> None:
        """Queue a record; where there is no room, drop others or refuse it."""
        self._arrivals += 1
        cost = record.ByteSize() + _OVERHEAD_BYTES
        example = Example(record, rank_of(self._arrivals, record), cost)
        if example.cost > self._limits.bytes_max:
            self.refused += 1
            return
        queue = self._queues.get(record.route)
        if queue is None:
            queue = self._queues[record.route] = _RouteQueue(kept, now_ns)
        queue.add(example)
        self._cost += example.cost
        self._make_room(queue)

    def _make_room(self, queue: _RouteQueue) -> None:
        limits = self._limits
        examples_max, cost_max = limits.route_examples_max, limits.route_bytes_max
        is_over = len(queue.examples) > examples_max or queue.cost > cost_max
        if is_over and len(queue.examples) > 1:
            largest = max(each.cost for each in queue.examples.values())
            cost_max = max(int(cost_max * _LEFT), largest)
            self._pass_over(queue, queue.most_valuable(examples_max * _LEFT, cost_max))
        while self._cost > limits.bytes_max:
            longest = max(self._queues.values(), key=lambda each: each.cost)
            self._pass_over(longest, longest.most_valuable(inf, longest.cost * _LEFT))

    def _pass_over(self, queue: _RouteQueue, all_but: Sequence[Example]) -> None:
        self.passed_over += len(queue.examples) - len(all_but)
        self._replace(queue, all_but)

    def _replace(self, queue: _RouteQueue, examples: Iterable[Example]) -> None:
        self._cost -= queue.cost
        queue.replace(examples)
        self._cost += queue.cost

    def take(self, now_ns: int, route: str | None = None) -> list[Example]:
        """Remove and return the examples that may be written by now, one of each route in turn.

        With `route`, that route's are taken at once; without, those of routes that are due.
        Examples that would no longer be kept are passed over.
        """
        self._bytes.refill(now_ns)
        turns = deque(self._due_queues(now_ns, route))
        taken: list[Example] = []
        while turns and self._bytes.has_some():
            queue, examples = turns.popleft()
            if not examples or not queue.allowance.has_some():
                continue
            taken.append(examples.popleft())
            queue.allowance.spend(1)
            self._bytes.spend(taken[-1].cost)
            turns.append((queue, examples))
        self._remove_taken(taken)
        self._move_routes_behind(taken)
        return taken

    def _due_queues(
        self, now_ns: int, route: str | None
    ) -> list[tuple[_RouteQueue, deque[Example]]]:
        """Refill the allowances; return the queues that are due, each with its pruned examples."""
        for queue in self._queues.values():
            queue.allowance.refill(now_ns)
        return [
            (queue, self._prune_queue(queue))
            for name, queue in self._queues.items()
            if name == route or (route is None and queue.is_due())
        ]

    def _move_routes_behind(self, taken: Sequence[Example]) -> None:
        """Put the routes that were served behind the others."""
        for each in taken:
            if queue := self._queues.pop(each.record.route, None):
                self._queues[each.record.route] = queue

    def take_all(self) -> list[Example]:
        """Remove and return all examples that would be kept, at any cost."""
        taken = [each for queue in self._queues.values() for each in self._prune_queue(queue)]
        self._remove_taken(taken)
        return taken

    def spend(self, bytes_: int) -> None:
        """Count other bytes that were written."""
        self._bytes.spend(bytes_)

    def _prune_queue(self, queue: _RouteQueue) -> deque[Example]:
        """Drop the examples that would not be kept; return the others, the most valuable first."""
        surviving = queue.kept_by_value()
        self._pass_over(queue, surviving)
        return deque(surviving)

    def _remove_taken(self, taken: Sequence[Example]) -> None:
        gone = {each.rank.number for each in taken}
        for name in {each.record.route for each in taken}:
            queue = self._queues[name]
            waiting = queue.examples.items()
            self._replace(queue, [each for number, each in waiting if number not in gone])
        for name, queue in list(self._queues.items()):
            if not queue.examples and queue.allowance.has_all():
                del self._queues[name]

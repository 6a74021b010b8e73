"""Which waiting requests run now, and when the next ones are due. Pure."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

_BEHIND_ALL: Final = 1 << 64  # a priority is a uint64


class PlannedRequest(Protocol):
    """What the plan reads of a request in the queue; times are monotonic nanoseconds."""

    @property
    def rows(self) -> int:
        """How many rows it brings."""
        ...

    @property
    def shape_key(self) -> Hashable:
        """Equal where requests can share a batch."""
        ...

    @property
    def priority(self) -> int:
        """Its rank before others: 1 is first; 0, the default, comes after all others."""
        ...

    @property
    def arrived_ns(self) -> int:
        """When it came."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """When its caller stops waiting; None: never."""
        ...


R = TypeVar("R", bound=PlannedRequest)


@dataclass(frozen=True, slots=True)
class TakeResult(Generic[R]):
    """What an idle worker gets: at most one of the three is there.

    `batch` runs now, in its order. `expired` are answered without running; then the caller takes
    again. Unless another request comes, no batch is due before `next_due_ns`.
    """

    batch: tuple[R, ...] = ()
    expired: tuple[R, ...] = ()
    next_due_ns: int | None = None


class _Group(Generic[R]):
    """Requests of one shape, by priority and then in order of arrival."""

    __slots__ = ("by_priority", "rows")

    def __init__(self) -> None:
        self.by_priority: dict[int, dict[int, R]] = {}  # by priority, then by id
        self.rows = 0

    def add(self, request: R) -> None:
        rank = request.priority or _BEHIND_ALL
        requests = self.by_priority.get(rank)
        if requests is None:
            requests = self.by_priority[rank] = {}
        requests[id(request)] = request
        self.rows += request.rows

    def remove(self, request: R) -> bool:
        rank = request.priority or _BEHIND_ALL
        requests = self.by_priority.get(rank)
        if requests is None or requests.pop(id(request), None) is None:
            return False
        if not requests:
            del self.by_priority[rank]
        self.rows -= request.rows
        return True

    def requests_in_order(self) -> Iterator[R]:
        if len(self.by_priority) == 1:  # the usual case: nobody asks for a priority
            for requests in self.by_priority.values():
                yield from requests.values()
            return
        for rank in sorted(self.by_priority):
            yield from self.by_priority[rank].values()

    def oldest_ns(self) -> int:
        return min(next(iter(each.values())).arrived_ns for each in self.by_priority.values())

    def order_key(self) -> tuple[int, int]:
        """Return the rank and arrival of the first request, which order it among groups."""
        rank = min(self.by_priority)
        return rank, next(iter(self.by_priority[rank].values())).arrived_ns


class BatchPlan(Generic[R]):
    """The requests that wait, in groups of equal shape.

    A group is due when its rows fill a batch, or when its oldest request has waited `max_delay_ns`.
    Of several that are due, the one with the first request goes: by priority, then by arrival; in
    that order its batch is filled. Where a batch is one row, all requests are one group.
    """

    def __init__(self, *, rows_max: int, max_delay_ns: int) -> None:
        self._rows_max = rows_max
        self._max_delay_ns = max_delay_ns
        self._groups: dict[Hashable, _Group[R]] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[R]:
        for group in self._groups.values():
            yield from group.requests_in_order()

    def add(self, request: R) -> bool:
        """Add a request; return whether its group now fills a batch."""
        key = self._group_key(request)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        group.add(request)
        return group.rows >= self._rows_max

    def remove(self, request: R) -> bool:
        """Remove a request; return whether it was there."""
        key = self._group_key(request)
        group = self._groups.get(key)
        if group is None or not group.remove(request):
            return False
        if not group.rows:
            del self._groups[key]
        return True

    def take(self, now_ns: int) -> TakeResult[R]:
        """Take the batch that an idle worker runs, or the expired requests before it."""
        group, next_due_ns = self._due_group(now_ns)
        if group is None:
            return TakeResult(next_due_ns=next_due_ns)
        batch, expired = self._batch_and_expired(group, now_ns)
        for request in expired or batch:
            self.remove(request)
        # Without the expired the group may no longer be due.
        return TakeResult(expired=tuple(expired)) if expired else TakeResult(tuple(batch))

    def take_one(self, now_ns: int) -> R | None:
        """Take the next request where each batch is one row.

        None where no request waits, or where the first has expired: it is answered before others
        run.
        """
        for group in self._groups.values():
            request = next(group.requests_in_order())
            if request.deadline_ns is None or request.deadline_ns > now_ns:
                self.remove(request)
                return request
        return None

    def _group_key(self, request: R) -> Hashable:
        return None if self._rows_max == 1 else request.shape_key

    def _due_group(self, now_ns: int) -> tuple[_Group[R] | None, int | None]:
        """Return the group to take from, or else when the first group is due."""
        due = [
            group
            for group in self._groups.values()
            if not self._max_delay_ns
            or group.rows >= self._rows_max
            or group.oldest_ns() + self._max_delay_ns <= now_ns
        ]
        if due:
            return (due[0] if len(due) == 1 else min(due, key=_Group.order_key)), None
        oldest_ns = min((group.oldest_ns() for group in self._groups.values()), default=None)
        return None, None if oldest_ns is None else oldest_ns + self._max_delay_ns

    def _batch_and_expired(self, group: _Group[R], now_ns: int) -> tuple[list[R], list[R]]:
        """Return the requests of a group that fit into one batch, and those that expired before."""
        batch: list[R] = []
        expired: list[R] = []
        rows = 0
        for request in group.requests_in_order():
            if request.deadline_ns is not None and request.deadline_ns <= now_ns:
                expired.append(request)
                continue
            # The first that doesn't fit closes the batch: smaller ones behind it must not overtake
            # it for ever.
            rows += request.rows
            if rows > self._rows_max:
                break
            batch.append(request)
            if rows == self._rows_max:
                break
        return batch, expired

"""Which waiting requests run now, and when to look again. Pure."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

_BEHIND_ALL: Final = 1 << 64  # a priority is a uint64


class Request(Protocol):
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
        """Its place before others: 1 is first; 0, none asked for, is behind all that ask."""
        ...

    @property
    def arrived_ns(self) -> int:
        """When it came."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """When it is no longer wanted; None: never."""
        ...


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class Taken(Generic[R]):
    """What left the line for one idle worker; at most one of the three is there.

    `batch` runs now, in its order. `expired` are to be answered without running, and the line asked
    again. Nothing is due before `look_again_ns` unless another request comes.
    """

    batch: tuple[R, ...] = ()
    expired: tuple[R, ...] = ()
    look_again_ns: int | None = None


class _Group(Generic[R]):
    """Requests of one shape: a lane for each priority, in order of arrival."""

    __slots__ = ("lanes", "rows")

    def __init__(self) -> None:
        self.lanes: dict[int, dict[int, R]] = {}  # by priority, then by id
        self.rows = 0

    def add(self, request: R) -> None:
        rank = request.priority or _BEHIND_ALL
        lane = self.lanes.get(rank)
        if lane is None:
            lane = self.lanes[rank] = {}
        lane[id(request)] = request
        self.rows += request.rows

    def remove(self, request: R) -> bool:
        rank = request.priority or _BEHIND_ALL
        lane = self.lanes.get(rank)
        if lane is None or lane.pop(id(request), None) is None:
            return False
        if not lane:
            del self.lanes[rank]
        self.rows -= request.rows
        return True

    def in_order(self) -> Iterator[R]:
        if len(self.lanes) == 1:  # the usual case: nobody asks for a priority
            for lane in self.lanes.values():
                yield from lane.values()
            return
        for rank in sorted(self.lanes):
            yield from self.lanes[rank].values()

    def oldest_ns(self) -> int:
        return min(next(iter(lane.values())).arrived_ns for lane in self.lanes.values())

    def place(self) -> tuple[int, int]:
        """Return what orders it among groups: the rank and arrival of its first request."""
        rank = min(self.lanes)
        return rank, next(iter(self.lanes[rank].values())).arrived_ns


class Line(Generic[R]):
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
            yield from group.in_order()

    def add(self, request: R) -> bool:
        """Let a request wait; return whether its group now fills a batch."""
        key = self._key(request)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        group.add(request)
        return group.rows >= self._rows_max

    def remove(self, request: R) -> bool:
        """Let a request wait no more; return whether it did."""
        key = self._key(request)
        group = self._groups.get(key)
        if group is None or not group.remove(request):
            return False
        if not group.rows:
            del self._groups[key]
        return True

    def take(self, now_ns: int) -> Taken[R]:
        """Take the batch that an idle worker runs, or what must be answered before there is one."""
        group, look_again_ns = self._due(now_ns)
        if group is None:
            return Taken(look_again_ns=look_again_ns)
        batch, expired = self._first_of(group, now_ns)
        for request in expired or batch:
            self.remove(request)
        # Without the expired the group may no longer be due: it is looked at afresh.
        return Taken(expired=tuple(expired)) if expired else Taken(tuple(batch))

    def take_one(self, now_ns: int) -> R | None:
        """Take the next request of a line whose batches are one row.

        None where nothing waits, or the first has expired: that is to be told before others run.
        """
        for group in self._groups.values():
            request = next(group.in_order())
            if request.deadline_ns is None or request.deadline_ns > now_ns:
                self.remove(request)
                return request
        return None

    def _key(self, request: R) -> Hashable:
        return None if self._rows_max == 1 else request.shape_key

    def _due(self, now_ns: int) -> tuple[_Group[R] | None, int | None]:
        """Return the group to take from, else when the first is due."""
        due = [
            group
            for group in self._groups.values()
            if not self._max_delay_ns
            or group.rows >= self._rows_max
            or group.oldest_ns() + self._max_delay_ns <= now_ns
        ]
        if due:
            return (due[0] if len(due) == 1 else min(due, key=_Group.place)), None
        oldest_ns = min((group.oldest_ns() for group in self._groups.values()), default=None)
        return None, None if oldest_ns is None else oldest_ns + self._max_delay_ns

    def _first_of(self, group: _Group[R], now_ns: int) -> tuple[list[R], list[R]]:
        """Return what of a group fits into one batch, and what expired before it was full."""
        batch: list[R] = []
        expired: list[R] = []
        rows = 0
        for request in group.in_order():
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

"""Which waiting requests run now, and when to look again. Pure."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
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
    def arrived_ns(self) -> int:
        """When it came."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """When it is no longer wanted; None: never."""
        ...


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Plan(Generic[W]):
    """What to do for one idle worker.

    `batch` runs now, in order of arrival; where it is empty, nothing is due before `look_again_ns`
    unless another request comes. `expired` are to be answered without running.
    """

    batch: tuple[W, ...] = ()
    expired: tuple[W, ...] = ()
    look_again_ns: int | None = None


@dataclass(slots=True)
class _Group(Generic[W]):
    """Requests of one shape, oldest first."""

    due_ns: int
    members: list[W] = field(default_factory=list)
    rows: int = 0
    full: bool = False

    def offer(self, request: W, rows_max: int) -> None:
        # The first that doesn't fit closes the batch: smaller ones behind it must not overtake it
        # for ever.
        if self.full or self.rows + request.rows > rows_max:
            self.full = True
            return
        self.members.append(request)
        self.rows += request.rows
        self.full = self.rows == rows_max


def next_batch(waiting: Iterable[W], *, now_ns: int, rows_max: int, max_delay_ns: int) -> Plan[W]:
    """Return the batch that an idle worker takes.

    `waiting` is in order of arrival. A batch is due when it is full, or when its oldest request has
    waited `max_delay_ns`; of several that are due, the one with the oldest request goes first.
    """
    groups: dict[Hashable, _Group[W]] = {}
    expired: list[W] = []
    for request in waiting:
        if request.deadline_ns is not None and request.deadline_ns <= now_ns:
            expired.append(request)
            continue
        group = groups.get(request.shape_key)
        if group is None:
            group = groups[request.shape_key] = _Group(request.arrived_ns + max_delay_ns)
        group.offer(request, rows_max)
        if group.full and len(groups) == 1:
            break  # the oldest batch is full: nothing behind it can change the choice
    return _choice(list(groups.values()), tuple(expired), now_ns)


def _choice(groups: list[_Group[W]], expired: tuple[W, ...], now_ns: int) -> Plan[W]:
    for group in groups:
        if group.full or group.due_ns <= now_ns:
            return Plan(tuple(group.members), expired)
    soonest = min((group.due_ns for group in groups), default=None)
    return Plan((), expired, soonest)

"""The copies of one route, role and variant, from the queue to what they came to. Pure."""

from collections import deque
from dataclasses import dataclass

from coalmine_router.codes import OK
from coalmine_router.observer.copies.copy_limits import CopyLimits
from coalmine_router.observer.copies.rate import CallRate
from coalmine_router.observer.observed_request import Copy, ObservedRequest
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey
from coalmine_router.table import Route, RouteTable, Variant


@dataclass(frozen=True, slots=True)
class Queued:
    """A copy that waits for its call, and the table's word when it was drawn."""

    observed: ObservedRequest
    copy: Copy
    route: Route
    variant: Variant
    offered_ns: int


class CopyQueue:
    """A bounded queue with its counts; whoever takes from it says how it ended."""

    def __init__(self, key: CopyQueueKey, totals: CopyCounts, limits: CopyLimits) -> None:
        self.key = key
        self.workers = 0
        self._totals = totals
        self._limits = limits
        self._queue: deque[Queued] = deque()
        self._held_bytes = 0
        self._rate = CallRate()

    @property
    def is_empty(self) -> bool:
        """Whether no copy waits."""
        return not self._queue

    @property
    def is_idle(self) -> bool:
        """Whether no copy waits or is under way."""
        return not self._queue and not self.workers

    # ------------------------------------------------------------ the queue

    def refusal(self, size_bytes: int) -> str:
        """Return why a copy can't wait here; empty: it can."""
        if size_bytes > self._limits.bytes_max:
            return "too_large"
        is_full = (
            len(self._queue) >= self._limits.queue_copies_max
            or self._held_bytes + size_bytes > self._limits.bytes_max
        )
        return "queue_full" if is_full else ""

    def refuse(self, reason: str) -> None:
        """Count a copy that was offered and does not wait."""
        self._totals.offered += 1
        self._totals.drop(reason)

    def put(self, queued: Queued) -> None:
        """Let a copy wait."""
        self._totals.offered += 1
        self._totals.waiting += 1
        self._queue.append(queued)
        self._held_bytes += queued.observed.size_bytes

    def take(self) -> Queued:
        """Return the copy that has waited longest: it is under way from here on."""
        queued = self._queue.popleft()
        self._totals.waiting -= 1
        self._totals.under_way += 1
        return queued

    # ------------------------------------------------------------ the call

    def has_expired(self, queued: Queued, now_ns: int) -> bool:
        """Return whether a copy has waited for too long."""
        return now_ns - queued.offered_ns > self._limits.wait_ns_max

    def take_rate(self, now_ns: int, max_rps: float | None) -> bool:
        """Take the room that a call needs in `max_rps`; return whether there is any."""
        return max_rps is None or self._rate.take(now_ns, max_rps)

    def note_circuit(self, refused: str) -> None:
        """Note whether all its addresses are out, by why no call can be made."""
        self._totals.circuit = "open" if refused == "circuit_open" else "closed"

    def count_sent(self, queued: Queued, code: str) -> None:
        """Count a copy whose call came to an end."""
        self._leave(queued)
        if code == OK:
            self._totals.answered += 1
        elif code == "DEADLINE_EXCEEDED":
            self._totals.timed_out += 1
        else:
            self._totals.failed += 1

    def give_up(self, queued: Queued, reason: str) -> None:
        """Count a copy that was taken, and not sent."""
        self._leave(queued)
        self._totals.drop(reason)

    def _leave(self, queued: Queued) -> None:
        self._totals.under_way -= 1
        self._held_bytes -= queued.observed.size_bytes


def is_wanted(key: CopyQueueKey, table: RouteTable) -> bool:
    """Return whether a table has copies drawn for a queue."""
    route = table.by_route.get(key.route)
    if route is None or key.variant not in route.by_name:
        return False
    if key.role == "shadow":
        return key.variant in route.shadows_bp
    return bool(route.audit_bp if key.role == "audit" else route.noise_bp)

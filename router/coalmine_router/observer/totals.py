"""Counts of what came and what was given up, on the way to a comparison. Pure."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple

from coalmine.control.v1 import control_pb2 as pb

PROXIES_MAX: Final = 1_024
REASONS_MAX: Final = 32
OTHER: Final = "other"
# What a proxy calls a reason: status, metrics and their readers have to hold it.
REASON_CHARS_MAX: Final = 128
# No proxy ever makes so many; status has 64 bits for the sum of all.
_TOTAL_MAX: Final = 2**63 - 1


class CopyQueueKey(NamedTuple):
    """Whose copies: of a route, in a role, to a variant; names that no table has are ""."""

    route: str
    role: str
    variant: str


@dataclass(slots=True)
class CopyCounts:
    """Copies drawn for one variant in one role, and what became of each.

    offered = dropped + waiting + under_way + sent; sent = timed_out + failed + answered. Of those
    sent, some are compared, some are not, and the others are on their way to it. `answered` are
    those with status OK.
    """

    offered: int = 0
    waiting: int = 0
    under_way: int = 0
    timed_out: int = 0
    failed: int = 0
    answered: int = 0
    compared: int = 0
    uncompared: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    # closed, open, half_open
    circuit: str = "closed"

    @property
    def sent(self) -> int:
        """Calls that came to an end."""
        return self.timed_out + self.failed + self.answered

    def drop(self, reason: str) -> None:
        """Count one that was given up; proxies name reasons of their own, within a bound."""
        self.dropped[bounded_reason(self.dropped, reason)] += 1

    def add(self, other: "CopyCounts") -> None:
        """Count what another has counted as well."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.dropped.items():
            self.dropped[bounded_reason(self.dropped, reason)] += count


_COUNTS: Final = tuple(each.name for each in fields(CopyCounts) if each.type is int)


@dataclass(slots=True)
class _ProxyTotals:
    """What one proxy has said of itself so far."""

    offered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    # The number of the last batch that was taken in.
    number: int = 0


class ReportTotals:
    """Sums over all proxies that ever were; each tells its own totals since its start.

    A restarted proxy has a new id, so its old counts stay. The last 1,024 proxies are remembered.
    """

    def __init__(self) -> None:
        self.offered = 0
        self.received = 0
        self.unreadable = 0
        self.dropped: Counter[str] = Counter()
        self._proxies: OrderedDict[str, _ProxyTotals] = OrderedDict()

    def add_batch(self, batch: pb.ReportBatch) -> bool:
        """Add what is new in a batch's totals; return whether its reports are new.

        They aren't in a batch that came before: a proxy sends again what wasn't acknowledged.
        What a proxy sent before it was first heard of went to a control process that is gone.
        """
        told = self._proxy_of(batch)
        if batch.number <= told.number:
            return False
        told.number = batch.number
        self._add(told, batch)
        return True

    def _add(self, told: _ProxyTotals, batch: pb.ReportBatch) -> None:
        more = max(0, batch.offered_total - told.offered)
        self.offered = min(self.offered + more, _TOTAL_MAX)
        told.offered = max(told.offered, batch.offered_total)
        for each, total in batch.dropped_total.items():
            reason = bounded_reason(told.dropped, each)
            before = told.dropped.get(reason, 0)
            if total > before:
                own = bounded_reason(self.dropped, reason)
                self.dropped[own] = min(self.dropped[own] + total - before, _TOTAL_MAX)
                told.dropped[reason] = total

    def _proxy_of(self, batch: pb.ReportBatch) -> _ProxyTotals:
        found = self._proxies.setdefault(batch.proxy_id, _ProxyTotals(offered=batch.sent_total))
        self._proxies.move_to_end(batch.proxy_id)
        if len(self._proxies) > PROXIES_MAX:
            self._proxies.popitem(last=False)
        return found


def bounded_reason(known: Mapping[str, int], reason: str) -> str:
    """Return the reason to count under: cut short, and OTHER where there are too many already."""
    reason = reason[:REASON_CHARS_MAX]
    return reason if reason in known or len(known) < REASONS_MAX - 1 else OTHER

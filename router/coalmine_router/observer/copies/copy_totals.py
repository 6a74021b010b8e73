"""The totals of all queues, those that are gone included: what was counted stays counted. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from coalmine_router.observer.totals import CopyCounts, CopyQueueKey

GONE_MAX: Final = 1_024


class CopyTotals:
    """One entry a queue. Of queues that are gone, the last 1,024; those before are added up.

    Reading it from another thread is safe.
    """

    def __init__(self, gone_max: int = GONE_MAX) -> None:
        self._entries: dict[CopyQueueKey, CopyCounts] = {}
        # Who went last comes last.
        self._gone: OrderedDict[CopyQueueKey, None] = OrderedDict()
        self._gone_max = gone_max

    def begin(self, key: CopyQueueKey) -> CopyCounts:
        """Return the totals of a queue that is in use; those of its name from before go on."""
        self._gone.pop(key, None)
        return self._entries.setdefault(key, CopyCounts())

    def end(self, key: CopyQueueKey) -> None:
        """Note that a queue is gone. All its copies have come to something."""
        self._entries[key].circuit = "closed"
        self._gone[key] = None
        if len(self._gone) > self._gone_max:
            oldest, _ = self._gone.popitem(last=False)
            self.nameless(oldest.role).add(self._entries.pop(oldest))

    def of(self, key: CopyQueueKey) -> CopyCounts:
        """Return the totals that a queue's comparisons count in."""
        return self._entries.get(key) or self.nameless(key.role)

    def nameless(self, role: str) -> CopyCounts:
        """Return the totals of names that no table has, or no longer has."""
        return self._entries.setdefault(CopyQueueKey("", role, ""), CopyCounts())

    def count_unknown(self, role: str) -> None:
        """Count a copy for a variant that the table doesn't have, which is given up."""
        totals = self.nameless(role)
        totals.offered += 1
        totals.drop("unknown_variant")

    def entries(self) -> Iterator[tuple[CopyQueueKey, CopyCounts]]:
        """Return all of them."""
        return iter(list(self._entries.items()))

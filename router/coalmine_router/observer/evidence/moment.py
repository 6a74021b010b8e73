"""Requests that were answered at about the same time: with noise, they count as one. Pure.

A server batches what comes together, and where a model's rows depend on their batch, all rows of a
batch differ together. Counted one by one, requests of one batch would be taken for as many proofs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LASTS_NS_MIN: Final = 20 * 10**6
# Of the slowest answer's time, in which its wait for a batch to fill is contained.
_LASTS_TIMES: Final = 4
_LASTS_NS_MAX: Final = 10 * 10**9
# Models choose their outputs' names.
_OUTPUTS_MAX: Final = 256


@dataclass(slots=True)
class _Sum:
    """Differences of one output."""

    total: float = 0.0
    count: int = 0


@dataclass(slots=True)
class Moment:
    """The differences of one moment's requests so far, by output."""

    begins_ns: int = 0
    ends_ns: int = 0
    requests: int = 0
    sums: dict[str, _Sum] = field(default_factory=dict)

    def add(
        self, differences: Mapping[str, float], *, at_ns: int, took_ns: int
    ) -> dict[str, float]:
        """Take one request's differences; return the mean ones of the moment that it ended, or {}.

        `took_ns` is how long its answers took: a moment lasts four times that at least, since what
        a server is busy with holds up what comes meanwhile into one batch.
        """
        ended: dict[str, float] = {}
        # A little before it began: exchanges come in the order of their reports, which need not be
        # that of their answers. Long before it began: the clock was set back.
        if not self.begins_ns - _LASTS_NS_MAX <= at_ns < self.ends_ns:
            ended = self._means()
            self.begins_ns, self.ends_ns, self.requests = at_ns, 0, 0
            self.sums.clear()
        lasts_ns = min(max(LASTS_NS_MIN, _LASTS_TIMES * took_ns), _LASTS_NS_MAX)
        self.ends_ns = max(self.ends_ns, self.begins_ns + lasts_ns)
        self.requests += 1
        for name, difference in differences.items():
            if name in self.sums or len(self.sums) < _OUTPUTS_MAX:
                found = self.sums.setdefault(name, _Sum())
                found.total += difference
                found.count += 1
        return ended

    def _means(self) -> dict[str, float]:
        """Return the mean by output; a request without an output is no different in it."""
        return {
            name: each.total / max(each.count, self.requests) for name, each in self.sums.items()
        }

"""What became of the calls during one fault, and what that says of the router. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# From a kill until callers know of it, on a busy machine.
KNOWN_AFTER_S = 0.1
# What a process may hold of memory at the end, by what it held after the first fault.
MEMORY_FACTOR_MAX = 1.25
MEMORY_MORE_MIB = 20.0


@dataclass(frozen=True)
class Failure:
    """A call that did not end OK with the right numbers; times are of CLOCK_MONOTONIC."""

    code: str
    text: str
    began_s: float
    ended_s: float
    channel: int
    origin: str = ""  # who says that it failed; "" where no answer came

    def was_cut_off(self, kill: "Kill") -> bool:
        """Return whether it failed because its connection broke, and nobody answered it."""
        lost = self.code == "UNAVAILABLE" and not self.origin
        return lost and kill.hit(self.channel, self.began_s, self.ended_s)


@dataclass(frozen=True)
class Kill:
    """When a process was killed that callers were connected to, and whose connections broke."""

    at_s: float
    channels: frozenset[int]

    @classmethod
    def of(cls, said: dict[str, Any]) -> "Kill":
        return cls(said["at_s"], frozenset(said["channels"]))

    def said(self) -> dict[str, Any]:
        """Return what `of` takes."""
        return {"at_s": self.at_s, "channels": sorted(self.channels)}

    def hit(self, channel: int, began_s: float, ended_s: float) -> bool:
        """Return whether a call was under way on it then, or began before that was known."""
        in_time = began_s <= self.at_s + KNOWN_AFTER_S and ended_s >= self.at_s
        return in_time and channel in self.channels


@dataclass(frozen=True)
class Tally:
    """The calls that ended since the tally before; `in_flight` is of those that a kill hit."""

    requests: int
    failures: Sequence[Failure]
    in_flight: int
    p50_ms: float
    p99_ms: float
    variants: dict[str, int]

    @classmethod
    def of(cls, said: dict[str, Any]) -> "Tally":
        failures = [Failure(**each) for each in said.pop("failures")]
        return cls(failures=failures, **said)

    def said(self) -> dict[str, Any]:
        """Return what `of` takes."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """One fault, and what was seen.

    Where a process was killed that callers have connections to, `kill` says which: calls in
    flight on these may fail, and nothing else. `trouble` is what went wrong with the fault itself.
    """

    fault: str
    tally: Tally
    kill: Kill | None = None
    well_after_s: float = 0.0
    trouble: str = ""
    notes: Sequence[str] = field(default=())

    @property
    def excused(self) -> int:
        """How many of the failures were to be expected."""
        if self.kill is None:
            return 0
        return sum(each.was_cut_off(self.kill) for each in self.tally.failures)

    @property
    def is_good(self) -> bool:
        """Whether calls were made, none failed that shouldn't, and all was well afterwards."""
        asked = self.tally.requests > 0
        return asked and len(self.tally.failures) == self.excused and not self.trouble

    @property
    def expected(self) -> str:
        """What may fail."""
        if self.kill is None:
            return "0"
        return f"of the {self.tally.in_flight} on its {len(self.kill.channels)} connections"

    @property
    def what_failed(self) -> str:
        """What failed and what else went wrong, in one line; "" where nothing did."""
        causes = Counter(f"{each.code} {each.text}" for each in self.tally.failures)
        seen = [f"{count} x {cause}" for cause, count in causes.most_common(3)]
        if not self.tally.requests:
            seen.append("no requests")
        return "; ".join([*filter(None, [self.trouble]), *seen])


@dataclass(frozen=True)
class Soaked:
    """All that was seen, and the memory of each kind of process: after the first fault, and last.

    With one fault only, it is before and after it.
    """

    outcomes: Sequence[Outcome]
    before_mib: Mapping[str, float]
    after_mib: Mapping[str, float]

    @property
    def grown(self) -> list[str]:
        return grown(self.before_mib, self.after_mib)

    @property
    def is_good(self) -> bool:
        return all(each.is_good for each in self.outcomes) and not self.grown


def grown(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Return the kinds of process that hold too much more memory, or of which nothing is known."""
    return [kind for kind, mib in before.items() if not 0 < after.get(kind, 0.0) <= _most(mib)]


def _most(before_mib: float) -> float:
    return before_mib * MEMORY_FACTOR_MAX + MEMORY_MORE_MIB if before_mib else 0.0


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return a percentile of numbers in their order; 0 of none."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0

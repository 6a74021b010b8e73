"""What became of the calls during one fault, and what that says of the router. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# From a kill until callers know of it, on a busy machine.
KNOWN_AFTER_S = 0.1


@dataclass(frozen=True)
class Failure:
    """A call that did not end OK with the right numbers; times are of CLOCK_MONOTONIC."""

    code: str
    text: str
    began_s: float
    ended_s: float

    def was_in_flight(self, at_s: float) -> bool:
        """Return whether it was under way then, or began before its caller could know."""
        return overlaps(self.began_s, self.ended_s, at_s)


@dataclass(frozen=True)
class Tally:
    """The calls that ended since the tally before; `in_flight` is of the moment asked for."""

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

    Where a process was killed that callers have calls on, `killed_s` is when: calls in flight on
    it may fail, and nothing else. `trouble` is what went wrong with the fault itself.
    """

    fault: str
    tally: Tally
    killed_s: float | None = None
    well_after_s: float = 0.0
    trouble: str = ""
    notes: Sequence[str] = field(default=())

    @property
    def excused(self) -> int:
        """How many of the failures were to be expected."""
        at_s = self.killed_s
        if at_s is None:
            return 0
        lost = [each for each in self.tally.failures if each.code == "UNAVAILABLE"]
        return min(sum(each.was_in_flight(at_s) for each in lost), self.tally.in_flight)

    @property
    def is_good(self) -> bool:
        """Whether calls were made, none failed that shouldn't, and all was well afterwards."""
        asked = self.tally.requests > 0
        return asked and len(self.tally.failures) == self.excused and not self.trouble

    @property
    def expected(self) -> str:
        """What may fail."""
        if self.killed_s is None:
            return "0"
        return f"in flight on it, of {self.tally.in_flight}"

    @property
    def what_failed(self) -> str:
        """What failed and what else went wrong, in one line; "" where nothing did."""
        causes = Counter(f"{each.code} {each.text}" for each in self.tally.failures)
        seen = [f"{count} x {cause}" for cause, count in causes.most_common(3)]
        if not self.tally.requests:
            seen.append("no requests")
        return "; ".join([*filter(None, [self.trouble]), *seen])


def overlaps(began_s: float, ended_s: float, at_s: float) -> bool:
    """Return whether a call was under way when a process was killed, or until that was known."""
    return began_s <= at_s + KNOWN_AFTER_S and ended_s >= at_s


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return a percentile of numbers in their order; 0 of none."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0

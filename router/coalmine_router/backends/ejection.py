"""The addresses that a variant has ejected, because calls to them keep failing. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

# Returns a number in [0, 1), each as likely, like random.Random().random.
Chance = Callable[[], float]

_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """How many failures in a row eject an address, and for how long; times are ± `jitter`."""

    failures: int = 5
    first_ns: int = 5 * _SECOND_NS
    longest_ns: int = 300 * _SECOND_NS
    jitter: float = 0.2


@dataclass(slots=True)
class Mark:
    """The record of one address. With an `until_ns` of 0 it is not ejected."""

    failures: int = 0
    until_ns: int = 0
    # The length of its last ejection, before jitter; and the time when it came back.
    span_ns: int = 0
    back_ns: int = 0
    # Whether a call has succeeded since then. An address that reports itself well may fail calls.
    has_answered: bool = False


class Ejections:
    """Counts failures in a row by address, and holds which address is ejected until when.

    `marks` is empty as long as nothing has failed. The hot path checks that first.
    """

    def __init__(self, chance: Chance, rules: EjectionRules | None = None) -> None:
        self.marks: dict[str, Mark] = {}
        self._chance = chance
        self._rules = rules or EjectionRules()

    @property
    def out_names(self) -> Sequence[str]:
        """The ejected addresses. The first one comes back last."""
        out = [name for name, mark in self.marks.items() if mark.until_ns]
        return sorted(out, key=lambda name: -self.marks[name].until_ns)

    @property
    def next_return_ns(self) -> int | None:
        """The time when the next one comes back; None where none is ejected."""
        return min((mark.until_ns for mark in self.marks.values() if mark.until_ns), default=None)

    def note_failure(self, name: str, now_ns: int, *, most: int) -> int:
        """Count a failed call. Return for how many nanoseconds that ejects its address, or 0.

        At most `most` addresses may be ejected at a time.
        """
        mark = self.marks.setdefault(name, Mark())
        mark.failures += 1
        if mark.until_ns or mark.failures < self._rules.failures:
            return 0
        if len(self.out_names) + 1 > most:
            return 0
        return self._eject(mark, now_ns)

    def note_answer(self, name: str, now_ns: int) -> None:
        """Count a call that succeeded. Failures before it are no longer in a row.

        The back-off resets once the address has worked for as long as its last ejection.
        """
        mark = self.marks.get(name)
        if mark is None:
            return
        mark.failures, mark.has_answered = 0, True
        if not mark.until_ns and now_ns - mark.back_ns >= mark.span_ns:
            del self.marks[name]

    def readmit_due(self, now_ns: int) -> list[str]:
        """Readmit the addresses whose time is over, and return them: they begin anew."""
        back = [name for name, mark in self.marks.items() if 0 < mark.until_ns <= now_ns]
        for name in back:
            mark = self.marks[name]
            mark.failures, mark.until_ns, mark.back_ns = 0, 0, now_ns
            mark.has_answered = False
        return back

    def forget_all_but(self, names: Collection[str]) -> None:
        """Forget all addresses but these."""
        for name in [each for each in self.marks if each not in names]:
            del self.marks[name]

    def _eject(self, mark: Mark, now_ns: int) -> int:
        rules = self._rules
        did_well = not mark.span_ns or (mark.has_answered and now_ns - mark.back_ns >= mark.span_ns)
        mark.span_ns = rules.first_ns if did_well else min(2 * mark.span_ns, rules.longest_ns)
        jittered = 1 + rules.jitter * (2 * self._chance() - 1)
        out_ns = min(int(mark.span_ns * jittered), rules.longest_ns)
        mark.until_ns = now_ns + out_ns
        return out_ns


def excluded_names(out: Sequence[str], names: Collection[str], *, most: int) -> frozenset[str]:
    """Return those of `names` that get no calls: the first `most` of those that are `out`."""
    here = [name for name in out if name in names]
    return frozenset(here[:most])

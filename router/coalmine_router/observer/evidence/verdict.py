"""What the evidence bears: a verdict, and the gates that it is made of. Values only."""

from dataclasses import dataclass
from typing import Final, Literal

Word = Literal["pass", "fail", "inconclusive"]
GateName = Literal["mismatch", "errors", "slow", "split", "addresses"]
Finding = Literal["pass", "fail", "open", "alarm"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate, and how strong the evidence is against "no worse" and against "worse".

    Logarithms are natural, and the greatest so far; `log_needed` ends it. `observed` are the
    observations that it rests on. `at_ns` is when it was decided; 0: it is open.
    """

    gate: GateName
    finding: Finding = "open"
    reason: str = ""
    log_fail: float = 0.0
    log_pass: float = 0.0
    log_needed: float = 0.0
    observed: int = 0
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a candidate, when it became what it is, and by which request."""

    verdict: Word = "inconclusive"
    reason: str = "nothing was compared yet"
    gates: tuple[Gate, ...] = ()
    at_ns: int = 0
    trace_id: bytes = b""

    def gate(self, name: GateName) -> Gate:
        """Return one of its gates, as it was found; an open one where it wasn't looked at."""
        return next((each for each in self.gates if each.gate == name), Gate(name))


NO_VERDICT: Final = Verdict()


@dataclass(frozen=True, slots=True)
class Figures:
    """What the evidence came to: comparisons by outcome, and the rate of mismatches.

    The interval holds the rate; None where nothing was counted, or the route allows any rate.
    """

    match: int = 0
    mismatch: int = 0
    error: int = 0
    skipped: int = 0
    rate: float | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    allowed_rate: float | None = None


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A verdict that became another; ids of the span that tipped it, empty where none did.

    `began_ns` is when its comparison began, or its request of the split ended; 0: nobody knows.
    """

    route: str
    reference: str
    candidate: str
    before: Verdict
    verdict: Verdict
    at_ns: int
    trial: int = 0
    reference_version: str = ""
    candidate_version: str = ""
    figures: Figures = Figures()
    trace_id: bytes = b""
    span_id: bytes = b""
    began_ns: int = 0

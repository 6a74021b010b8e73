"""One look at a gate: what was found before stays found, and the evidence only ever grows. Pure."""

from collections.abc import Callable
from typing import NamedTuple

from coalmine_router.observer.evidence.verdict import Finding, Gate


class Look(NamedTuple):
    """The evidence now; `may_pass`: there are observations enough for it."""

    log_fail: float
    log_pass: float
    observed: int
    may_pass: bool = False
    against: Finding = "fail"


def evaluate_gate(
    before: Gate, look: Look, log_needed: float, reason: Callable[[Finding], str]
) -> Gate:
    """Return the gate after a look.

    By Ville's inequality it is the greatest e-value that counts, so what once crossed stays so. A
    FAIL after a PASS stands: its own e-value was valid all the while. What spoke for a PASS before
    there were observations enough must still be there then, or the reason would contradict it.
    `reason` is asked as long as the gate is open, and when it is decided.
    """
    log_fail, log_pass = max(before.log_fail, look.log_fail), max(0.0, look.log_pass)
    if before.finding == "pass":
        log_pass = max(before.log_pass, log_pass)
    finding = before.finding
    if log_fail >= log_needed:
        finding = look.against
    elif finding == "open" and look.may_pass and log_pass >= log_needed:
        finding = "pass"
    told = before.reason if finding == before.finding != "open" else reason(finding)
    return Gate(
        before.gate, finding, told, log_fail, log_pass, log_needed, look.observed, before.at_ns
    )

"""The gate on addresses: was each ready one of the candidate compared, and do they agree? Pure.

It never FAILs. A PASS waits for each ready address, and for addresses that agree: a variant is
several processes, and what one of them answers is no evidence of the others. It also waits while a
ready address was wrong in far more of its requests than the others, however few these are: the
mean knows little of an address that answers rarely, and may be shown before it is compared at all.

An address stands out where it is shown to be wrong more often than the others by more than
`max_mismatch_rate`. Alpha is shared out among all addresses of both sides.

What is found here is of now, unlike at the other gates: addresses come and go.

The evidence for an address is the bet of paired.py on d of address_evidence.py: its answers beside
those of the others. The mean of d is 0 where all are alike, as long as which address answers next
doesn't depend on the answers: the router draws it by chance. Simulated, 1 % allowed, 200 runs of
5,000 requests, looked at always: of 2, 3 and 30 addresses that all mismatch in 0.2, 1, 10 or 50 %,
or in 5 % by bursts of 10, one is named in at most 0.5 % of runs. One that is always wrong is named
after 16 requests of its own among 3 addresses, and after 14 among 30 (medians; 20 and 15 in nine of
ten runs); one that is wrong in half of its requests after 31 and 28.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Final, NamedTuple

import numpy as np

from coalmine_router.observer.evidence.address_evidence import ReadyAddresses, VariantAddresses
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.gates.wording import duration_text
from coalmine_router.observer.evidence.paired import log_above
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import Gate

_NAMED_MAX: Final = 3
_LOG_2: Final = log(2.0)
# As the gate is before anything was seen.
UNDECIDED: Final = Gate("addresses")


class StandingOut(NamedTuple):
    """Ln e of the addresses of each side that stand out, by name, the worst first."""

    reference: Mapping[str, float]
    candidate: Mapping[str, float]


def addresses_gate(
    evidence: Evidence, ready: ReadyAddresses, settings: GateSettings, before: Gate
) -> Gate:
    """Return the gate after a look at it; `before` itself where that is the same."""
    odd = standing_out(evidence, ready, settings, before)
    unseen = evidence.candidate_addresses.unseen(ready.candidate, settings.addresses_within_ns)
    in_doubt = evidence.candidate_addresses.in_doubt(ready.candidate)
    waits = (_unseen_text(ready.candidate, unseen, settings), _in_doubt_text(evidence, in_doubt))
    found = Gate(
        before.gate,
        "open" if unseen or in_doubt or not evidence.shares.requests else "pass",
        "; ".join(filter(None, waits)) or _seen_text(ready.candidate),
        observed=evidence.candidate_addresses.compared,
        at_ns=before.at_ns,
    )
    if odd.candidate or odd.reference:
        found = replace(
            found,
            finding="alarm",
            reason="; ".join(_odd_texts(evidence, odd)),
            log_fail=max((*odd.candidate.values(), *odd.reference.values())),
            log_needed=_log_needed(evidence, settings, UNDECIDED),
        )
    return before if found == before else found


def standing_out(
    evidence: Evidence, ready: ReadyAddresses, settings: GateSettings, before: Gate
) -> StandingOut:
    """Return which addresses stand out among those that are ready.

    Where the router knows no ready ones, among those that were compared of late. An alarm ends when
    the evidence for it is as good as none, so that it doesn't come and go.
    """
    needed = _log_needed(evidence, settings, before)
    return StandingOut(
        _log_evidence_over(evidence.reference_addresses, ready.reference, settings, needed),
        _log_evidence_over(evidence.candidate_addresses, ready.candidate, settings, needed),
    )


def _log_needed(evidence: Evidence, settings: GateSettings, before: Gate) -> float:
    number = evidence.reference_addresses.known + evidence.candidate_addresses.known
    return log(max(1, number)) + (0.0 if before.finding == "alarm" else settings.log_needed)


def _log_evidence_over(
    side: VariantAddresses, ready: Sequence[str], settings: GateSettings, needed: float
) -> Mapping[str, float]:
    """Return ln e against "no more often wrong than the others, but for what is allowed".

    Of those addresses of a side of which it is `needed` or more.
    """
    suspects = _suspects(side, ready, settings, needed)
    if not suspects:
        return {}
    own = (side.by_name[name] for name in suspects)
    counts = np.array([(each.worse, each.same, each.better) for each in own])
    logs = log_above(counts, settings.max_mismatch_rate or 0.0).tolist()
    found = sorted(zip(suspects, logs, strict=True), key=lambda each: -each[1])
    return {name: log_e for name, log_e in found if log_e >= needed}


def _suspects(
    side: VariantAddresses, ready: Sequence[str], settings: GateSettings, needed: float
) -> Sequence[str]:
    """Return the addresses that are worth a look: the best of bets doubles with a d of 1."""
    found = [name for name, own in side.by_name.items() if own.worse * _LOG_2 >= needed]
    if ready:
        return [name for name in found if name in ready]
    unseen = side.unseen(found, settings.addresses_within_ns)
    return [name for name in found if name not in unseen]


# ---------------------------------------------------------------- in words


def _unseen_text(ready: Sequence[str], unseen: Sequence[str], settings: GateSettings) -> str:
    if not unseen:
        return ""
    within = duration_text(settings.addresses_within_ns)
    some = f"{len(unseen):,} of {len(ready):,} ready addresses"
    return f"{some} not compared within {within} of traffic: {_names_text(unseen)}"


def _in_doubt_text(evidence: Evidence, names: Sequence[str]) -> str:
    if not names:
        return ""
    said = _wrong_text(evidence.candidate_addresses, names)
    return f"too few to say whether its addresses agree: {said} requests"


def _seen_text(ready: Sequence[str]) -> str:
    return f"all {len(ready):,} ready addresses were compared" if len(ready) > 1 else ""


def _odd_texts(evidence: Evidence, odd: StandingOut) -> Iterator[str]:
    if odd.candidate:
        yield f"its addresses disagree: {_side_text(evidence.candidate_addresses, odd.candidate)}"
    if odd.reference:
        told = _side_text(evidence.reference_addresses, odd.reference)
        yield f"the reference's addresses disagree: {told}"


def _side_text(side: VariantAddresses, odd: Mapping[str, float]) -> str:
    others = [each for name, each in side.by_name.items() if name not in odd]
    wrong = sum(each.mismatch + each.failed for each in others)
    compared = sum(each.compared for each in others)
    said = _wrong_text(side, odd)
    return f"{said} requests, the other {len(others):,} in {wrong:,} of {compared:,}"


def _wrong_text(side: VariantAddresses, names: Iterable[str]) -> str:
    return _names_text([f"{name} is wrong in {_wrong_share_text(side, name)}" for name in names])


def _wrong_share_text(side: VariantAddresses, name: str) -> str:
    own = side.by_name[name]
    return f"{own.mismatch + own.failed:,} of {own.compared:,}"


def _names_text(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_MAX
    said = ", ".join(names[:_NAMED_MAX])
    return f"{said} and {more:,} more" if more > 0 else said

"""From evidence to a verdict: each gate is looked at, and what they say together. Pure.

FAIL: a gate found the candidate worse; it is final. PASS: the predictions were shown to be within
what is allowed, its failures too, and no gate speaks against it. INCONCLUSIVE: neither, or the
split can't be trusted. It may be looked at after every observation: see mixture.py.
"""

from dataclasses import replace
from math import log
from typing import Final

from coalmine_router.observer.comparison.result import Outcome
from coalmine_router.observer.evidence.address_evidence import ReadyAddresses
from coalmine_router.observer.evidence.counts import SEGMENTS_MAX, Evidence, Shares
from coalmine_router.observer.evidence.gates.addresses_gate import addresses_gate
from coalmine_router.observer.evidence.gates.mismatch_gate import mismatch_gate
from coalmine_router.observer.evidence.gates.traffic_gates import errors_gate, slow_gate, split_gate
from coalmine_router.observer.evidence.gates.wording import duration_text
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.settings import GateSettings, gate_settings
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Gate, GateName, Verdict, Word

__all__ = ["GateSettings", "gate_settings", "segment_verdicts", "verdict_after"]

_UNCOMPARED: Final[dict[Outcome, str]] = {
    "error": "failed",
    "skipped": "skipped",
    "ignored": "ignored by rule",
}
_NO_COPIES: Final = "no copy of a request to the candidate has shown yet whether it fails"
_UNSEEN: Final[dict[GateName, Gate]] = {
    name: Gate(name) for name in ("mismatch", "errors", "slow", "split", "addresses")
}
# What must have passed for a PASS, and is told as long as it is open.
_NEEDED: Final[tuple[GateName, ...]] = ("mismatch", "errors", "addresses")
_NONE_KNOWN: Final = ReadyAddresses()


def verdict_after(
    evidence: Evidence,
    gates: GateSettings,
    before: Verdict,
    *,
    at_ns: int,
    trace_id: bytes,
    ready: ReadyAddresses = _NONE_KNOWN,
) -> Verdict:
    """Return the verdict; `before` itself where nothing changed, and once it is FAIL.

    Only an address that stands out is still added to a FAIL: it may take longer to be shown.

    `before` is the verdict on the same evidence at an earlier look, by the same settings. Time and
    trace are those of the look that changed the word.
    """
    if before.verdict == "fail":
        return _with_odd_address(before, evidence, gates, ready, at_ns)
    found = _evaluate_gates(evidence, gates, before, ready, at_ns)
    if len(found) == len(before.gates) and all(map(_is_same, found, before.gates)):
        # What failed or was skipped is seen by no gate, as long as nothing was compared.
        return before if evidence.shares.requests else _with_present_reason(before, evidence, gates)
    word = _verdict_word(found, gates, before.verdict)
    reason = _reason(word, found, evidence, gates)
    if word == before.verdict:
        return Verdict(word, reason, found, before.at_ns, before.trace_id)
    return Verdict(word, reason, found, at_ns, trace_id)


def _is_same(one: Gate, other: Gate) -> bool:
    return one is other


def _with_present_reason(before: Verdict, evidence: Evidence, gates: GateSettings) -> Verdict:
    reason = _reason(before.verdict, before.gates, evidence, gates)
    return before if reason == before.reason else replace(before, reason=reason)


def _with_odd_address(
    before: Verdict, evidence: Evidence, gates: GateSettings, ready: ReadyAddresses, at_ns: int
) -> Verdict:
    seen = before.gate("addresses")
    if seen.finding == "alarm":
        return before
    gate = addresses_gate(evidence, ready, gates, seen)
    if gate.finding != "alarm":
        return before
    others = (each for each in before.gates if each.gate != "addresses")
    found = (*others, replace(gate, at_ns=at_ns))
    return replace(before, gates=found, reason=_reasons_against(found))


def _evaluate_gates(
    evidence: Evidence, gates: GateSettings, before: Verdict, ready: ReadyAddresses, at_ns: int
) -> tuple[Gate, ...]:
    seen = {**_UNSEEN, **{gate.gate: gate for gate in before.gates}}
    found = []
    if gates.max_mismatch_rate is not None:
        found.append(mismatch_gate(evidence, gates.max_mismatch_rate, gates, seen["mismatch"]))
    if gates.error_rate:
        found.append(errors_gate(evidence, gates, seen["errors"]))
    if gates.slow:
        found.append(slow_gate(evidence, gates, seen["slow"]))
    found.append(split_gate(evidence, seen["split"]))
    found.append(addresses_gate(evidence, ready, gates, seen["addresses"]))
    return tuple(_with_time(each, seen[each.gate], at_ns) for each in found)


def _with_time(gate: Gate, before: Gate, at_ns: int) -> Gate:
    return gate if gate.finding == before.finding else replace(gate, at_ns=at_ns)


def _verdict_word(found: tuple[Gate, ...], gates: GateSettings, before: Word) -> Word:
    findings = {gate.gate: gate.finding for gate in found}
    if "fail" in findings.values():
        return "fail"
    if "alarm" in findings.values():
        return "inconclusive"
    needed = (name for name in _NEEDED if name != "errors" or gates.error_rate)
    has_passed = all(findings.get(name) == "pass" for name in needed)
    return "pass" if has_passed or before == "pass" else "inconclusive"


# ---------------------------------------------------------------- in words


def _reason(word: Word, found: tuple[Gate, ...], evidence: Evidence, gates: GateSettings) -> str:
    if against := _reasons_against(found):
        return against
    if word == "pass":
        return "; ".join(filter(None, (each.reason for each in found if each.finding == "pass")))
    return _open_reason(found, evidence, gates)


def _reasons_against(found: tuple[Gate, ...]) -> str:
    return "; ".join(each.reason for each in found if each.finding in {"fail", "alarm"})


def _open_reason(found: tuple[Gate, ...], evidence: Evidence, gates: GateSettings) -> str:
    requests = evidence.shares.requests
    if gates.max_mismatch_rate is None:
        return "predictions are not judged: the route has no max_mismatch_rate"
    if not requests:
        return _why_nothing_compared(evidence)
    if requests < gates.min_pairs:
        return f"{found[0].reason}; at least {gates.min_pairs:,} requests must be compared"
    lasted_ns, needed_ns = evidence.windows.lasted_ns, gates.min_duration_ns
    if found[0].log_pass >= gates.log_needed and lasted_ns < needed_ns:
        seconds = duration_text(lasted_ns // 10**9 * 10**9)
        return f"{found[0].reason}; comparisons go on for {seconds} of {duration_text(needed_ns)}"
    still_open = (each for each in found if each.finding == "open" and each.gate in _NEEDED)
    told = [each.reason for each in still_open if each.reason]
    return f"not decided yet: {'; '.join(told) or _NO_COPIES}"


def _why_nothing_compared(evidence: Evidence) -> str:
    seen = [(evidence.outcomes[outcome], words) for outcome, words in _UNCOMPARED.items()]
    told = [f"{number:,} {words}" for number, words in seen if number]
    return f"no two answers to compare: {', '.join(told)}" if told else NO_VERDICT.reason


# ---------------------------------------------------------------- segments


def segment_verdicts(evidence: Evidence, gates: GateSettings) -> dict[str, Word]:
    """Return what the evidence of each segment alone says now, to be shown.

    With alpha shared out among as many segments as there may be, so one false word among all of
    them has the chance alpha. With noise none fails: it isn't counted by segment.
    """
    rate = gates.max_mismatch_rate
    if rate is None:
        return dict.fromkeys(evidence.segments, "inconclusive")
    needed = log(SEGMENTS_MAX / gates.alpha)
    return {
        name: _word_of(each.shares, rate, needed, gates) for name, each in evidence.segments.items()
    }


def _word_of(shares: Shares, rate: float, needed: float, gates: GateSettings) -> Word:
    weights = log_evidence(shares.mismatch, shares.match, rate)
    if weights.above >= needed and not gates.has_noise:
        return "fail"
    if weights.below >= needed and shares.requests >= gates.min_pairs:
        return "pass"
    return "inconclusive"

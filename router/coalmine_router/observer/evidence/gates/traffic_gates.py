"""The gates on traffic: errors, slow requests, and whether the split was kept. Pure."""

from math import exp, inf, log, log1p
from typing import Final

import numpy as np

from coalmine_router.observer.evidence.betting.spells import SpellEvidence
from coalmine_router.observer.evidence.counts import Events, Evidence
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.gates.wording import count_text, interval_text, percent
from coalmine_router.observer.evidence.interval import rate_of
from coalmine_router.observer.evidence.looks import Look, evaluate_gate
from coalmine_router.observer.evidence.mixture import Weights, log_evidence
from coalmine_router.observer.evidence.paired import log_above, log_below
from coalmine_router.observer.evidence.settings import SPLIT_ALPHA, GateSettings
from coalmine_router.observer.evidence.split_events import log_off_split
from coalmine_router.observer.evidence.verdict import Finding, Gate

_LOG_2: Final = log(2.0)
_SPLIT_NEEDED: Final = log(1.0 / SPLIT_ALPHA)
# Every request is an event of the split: it is looked at whenever they are a 64th more. Looking
# less often can only miss something, never find what isn't there.
_MORE_BITS: Final = 6


def errors_gate(evidence: Evidence, settings: GateSettings, before: Gate) -> Gate:
    """Return the gate after a look at whether the candidate fails where the reference does not.

    Of the split, by its share of the errors and of the refusals; of copies, by how often it failed
    a request that the reference answered, which may be as often as predictions may mismatch. FAIL
    by the mean of the e-values. PASS where its failures are shown to be within that.
    """
    failures, errors, refusals = evidence.failures, evidence.errors, evidence.refusals
    observed = failures.requests + errors.bets.observed + refusals.bets.observed
    if observed == before.observed:
        return before
    by_errors, by_refusals = errors.log_fail(), refusals.log_fail()
    by_split, of_copies = _log_mean(by_errors, by_refusals), _of_copies(evidence, settings)
    may_pass = settings.max_mismatch_rate is not None and failures.requests >= settings.min_pairs
    look = Look(_log_mean(by_split, of_copies.above), of_copies.below, observed, may_pass)
    is_of_copies = of_copies.above > by_split

    def reason_for(finding: Finding) -> str:
        if finding == "fail" and not is_of_copies:
            if by_refusals > by_errors:
                return _events_text(refusals, "refusals", finding)
            return _events_text(errors, "errors", finding)
        return _failures_text(evidence, settings, finding)

    return evaluate_gate(before, look, settings.log_needed, reason_for)


def _of_copies(evidence: Evidence, settings: GateSettings) -> Weights:
    """Return the evidence of copies; none for either where too few answers could be compared.

    A candidate that answered nothing yet may be one that can't be reached.
    """
    rate, failures = settings.max_mismatch_rate, evidence.failures
    if rate is None:
        return Weights(0.0, 0.0)
    found = log_evidence(failures.mismatch, failures.match, rate)
    above, below = float(found.above), float(found.below)
    if settings.has_noise:
        above, below = _weights_beyond_noise(evidence.failed_more, rate, below)
    # Less than it is can be taken at any time; more, as 0 in the place of what is below, never.
    most = inf if evidence.shares.requests >= settings.min_pairs else 0.0
    return Weights(min(above, most), min(below, most))


def _weights_beyond_noise(more: Differences, rate: float, below: float) -> tuple[float, float]:
    """Return the evidence where the reference, asked twice, fails at times by itself.

    Who fails less often than is allowed does so beyond the reference's own failures too: half of
    the stake for a PASS is on `below`, the evidence on that.
    """
    counts = np.array([more.worse, more.same, more.better])
    return float(log_above(counts, rate)), _log_mean(below, float(log_below(counts, rate)))


def _log_mean(one: float, other: float) -> float:
    """Return the logarithm of the mean of two e-values: valid, whatever they have in common."""
    greatest, least = max(one, other), min(one, other)
    return greatest - _LOG_2 + log1p(exp(least - greatest))


def slow_gate(evidence: Evidence, settings: GateSettings, before: Gate) -> Gate:
    """Return the gate after a look at whether the candidate is slow more often than its share."""
    events = evidence.slow
    if events.bets.observed == before.observed:
        return before
    look = Look(events.log_fail(), 0.0, events.bets.observed)
    return evaluate_gate(
        before,
        look,
        settings.log_needed,
        lambda finding: _events_text(events, "slow requests", finding),
    )


def split_gate(evidence: Evidence, before: Gate) -> Gate:
    """Return the gate after a look at whether the router split as the weights say.

    It says nothing of the model; where it did not, nothing else of the split can be trusted.
    """
    events, seen = evidence.assigned, before.observed
    total = events.total
    if total < seen + max(1, seen >> _MORE_BITS):
        return before
    look = Look(log_off_split(events), 0.0, total, against="alarm")
    return evaluate_gate(
        before, look, _SPLIT_NEEDED, lambda finding: _events_text(events, "requests", finding)
    )


def _events_text(events: Events | SpellEvidence, what: str, finding: Finding) -> str:
    said = f"{events.of_candidate:,} of {events.total:,} {what} were the candidate's"
    if finding == "open":
        return said
    by_weight = f"{said}, {count_text(events.expected)} expected by its weight"
    if finding == "alarm":
        return f"{by_weight}: the router does not split as configured"
    return by_weight


def _failures_text(evidence: Evidence, settings: GateSettings, finding: Finding) -> str:
    failures, rate = evidence.failures, settings.max_mismatch_rate
    if not failures.requests or rate is None:
        return _events_text(evidence.errors, "errors", "open")
    said = f"{percent(failures.mean)} of {failures.requests:,} copied requests failed"
    if settings.has_noise:
        more = percent(evidence.failed_more.mean)
        return f"{said}, {more} more often than the reference itself; allowed {percent(rate)} more"
    if finding == "open":
        return f"{said}, allowed {percent(rate)}"
    return f"{said} {interval_text(rate_of(failures, settings.alpha))}, allowed {percent(rate)}"

"""The gate on predictions: do more of them mismatch than is allowed? Pure.

Without noise it rests on whole comparisons. With noise, on each output by itself, and on whether
answers could be read at all as one output more: FAIL by the mean of the outputs' e-values, against
"none is too far beyond the noise"; PASS where every output is shown to be within.

An output that an answer doesn't have counts as no different in that request, so all rates are
those of requests, and a rare output holds up no verdict.
"""

from dataclasses import replace
from math import log
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coalmine_router.observer.evidence.address_evidence import VariantAddresses
from coalmine_router.observer.evidence.betting.wealth import log_mean_exp
from coalmine_router.observer.evidence.counts import Evidence, OutputEvidence
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.gates.wording import interval_text, percent
from coalmine_router.observer.evidence.interval import difference_of, rate_of
from coalmine_router.observer.evidence.looks import Look, evaluate_gate
from coalmine_router.observer.evidence.mixture import log_evidence
from coalmine_router.observer.evidence.paired import log_above, log_below
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import Finding, Gate

_WHOLE: Final = "the answer as a whole"
# Where 1 % is allowed, one mismatch that happens to come first is evidence enough, and convinces
# nobody. A look that isn't taken costs nothing.
FAIL_REQUESTS_MIN: Final = 10


def mismatch_gate(evidence: Evidence, rate: float, settings: GateSettings, before: Gate) -> Gate:
    """Return the gate after a look at it; `before` itself where nothing new was compared."""
    if settings.has_noise:
        return _noise_gate(evidence, rate, settings, before)
    windows, requests = evidence.windows, evidence.shares.requests
    if windows.windows == before.observed:
        return _with_present_reason(evidence, rate, settings, before)
    look = Look(
        _zero_until_enough(float(windows.bets.log_fail()), requests),
        float(windows.bets.log_pass()),
        windows.windows,
        has_enough(evidence, settings),
    )
    return evaluate_gate(
        before,
        look,
        settings.log_needed,
        lambda finding: _reason(evidence, rate, settings, finding),
    )


def _with_present_reason(
    evidence: Evidence, rate: float, settings: GateSettings, before: Gate
) -> Gate:
    """Return an open gate with the figures of now; `before` itself where they are the same."""
    if before.finding != "open" or not evidence.shares.requests:
        return before
    reason = _reason(evidence, rate, settings, "open")
    return before if reason == before.reason else replace(before, reason=reason)


def has_enough(evidence: Evidence, settings: GateSettings) -> bool:
    """Return whether requests enough were compared for a PASS, and for long enough."""
    is_long = evidence.windows.lasted_ns >= settings.min_duration_ns
    return is_long and evidence.shares.requests >= settings.min_pairs


def _zero_until_enough(log_fail: float, observed: int) -> float:
    return log_fail if observed >= FAIL_REQUESTS_MIN else 0.0


def _reason(evidence: Evidence, rate: float, settings: GateSettings, finding: Finding) -> str:
    shares = evidence.shares
    said = f"{percent(shares.mean)} of {shares.requests:,} requests mismatch"
    unanswered = _unanswered_text(evidence)
    if finding == "open":
        return f"{said}, allowed {percent(rate)}{unanswered}"
    interval = interval_text(rate_of(shares, settings.alpha))
    worst = ""
    if finding == "fail":
        worst = _worst_output_text(evidence) + _only_address_text(evidence.candidate_addresses)
    return f"{said} {interval}, allowed {percent(rate)}{unanswered}{worst}"


def _unanswered_text(evidence: Evidence) -> str:
    unanswered = evidence.windows.unanswered
    sent = evidence.shares.requests + unanswered
    return f"; {unanswered:,} of {sent:,} copies were not answered" if unanswered else ""


def _only_address_text(addresses: VariantAddresses) -> str:
    """Return where all mismatches come from, where that is one of several addresses."""
    wrong = [name for name, each in addresses.by_name.items() if each.mismatch]
    if len(wrong) != 1 or addresses.known == 1 or addresses.let_go:
        return ""
    return f"; all of them at {wrong[0]}, one of {addresses.known:,} addresses"


def _worst_output_text(evidence: Evidence) -> str:
    sums = {name: each.raw.mismatch for name, each in evidence.outputs.items()}
    sums[""] = evidence.whole.raw.mismatch
    name = max(sums, key=lambda each: sums[each])
    if not name:
        return "; its answers can't be compared with the reference's at all"
    return f"; worst output: {name}" if len(sums) > 2 else ""


# ---------------------------------------------------------------- with noise


def _log_answered(evidence: Evidence, rate: float) -> float:
    """Return ln e against "of the copies sent, at least so many have no answer"."""
    below = log_evidence(evidence.windows.unanswered, evidence.shares.requests, rate).below
    return float(below)


def _noise_gate(evidence: Evidence, rate: float, settings: GateSettings, before: Gate) -> Gate:
    observed = evidence.shares.requests
    if observed == before.observed:
        return before
    outputs = {**evidence.outputs, "": evidence.whole}
    counts = np.array([_difference_counts(each, evidence.moments) for each in outputs.values()])
    fails, passes = log_above(counts, rate), _log_passes(evidence, outputs, counts, rate)
    worst, nearest = (list(outputs)[int(place)] for place in (fails.argmax(), passes.argmin()))
    log_fail = _zero_until_enough(float(log_mean_exp(fails)), observed)
    log_pass = min(float(passes.min()), _log_answered(evidence, rate))
    look = Look(log_fail, log_pass, observed, has_enough(evidence, settings))

    def reason_for(finding: Finding) -> str:
        # As long as nothing is decided, of the output on which the likelier word hangs.
        is_bad = finding == "fail" or (
            finding == "open" and look.log_fail > max(0.0, look.log_pass)
        )
        name = worst if is_bad else nearest
        reason = _beyond_noise_reason(name or _WHOLE, outputs[name], rate, settings, finding)
        return f"{reason}{_unanswered_text(evidence)}"

    return evaluate_gate(before, look, settings.log_needed, reason_for)


def _difference_counts(output: OutputEvidence, moments: int) -> tuple[float, float, float]:
    """Return how many differences are 1, 0 and -1, over all moments with noise."""
    found = output.beyond_noise
    # Of outputs that are counted together there may be more than moments.
    same = max(found.same, moments - found.worse - found.better)
    return found.worse, same, found.better


def _log_passes(
    evidence: Evidence,
    outputs: dict[str, OutputEvidence],
    counts: NDArray[np.float64],
    rate: float,
) -> NDArray[np.float64]:
    """Return ln e against "too far beyond the noise", of each output.

    Where a candidate mismatches less than is allowed, noise left aside, it does so beyond the noise
    too: so half of the stake is on that, which needs no second answers.
    """
    total = evidence.shares.mismatch + evidence.shares.match
    ones = np.array([each.raw.mismatch for each in outputs.values()])
    own = np.array([each.raw.match for each in outputs.values()])
    raw = log_evidence(ones, np.maximum(own, total - ones), rate).below
    both: Any = np.logaddexp(raw, log_below(counts, rate)) - log(2.0)
    return np.asarray(both)


def _beyond_noise_reason(
    name: str, output: OutputEvidence, rate: float, settings: GateSettings, finding: Finding
) -> str:
    raw, noise, allowed = output.raw, output.noise, f"allowed {percent(rate)} more"
    if finding == "fail":
        return (
            f"{name} mismatches {percent(output.beyond_noise.mean)} more often than the reference "
            f"against itself {_interval_text(output.beyond_noise, settings.alpha)}, in "
            f"{noise.requests:,} requests of {output.beyond_noise.requests:,} moments; {allowed}"
        )
    said = (
        f"{percent(raw.mean)} of {raw.requests:,} requests mismatch in {name}, the reference "
        f"against itself in {percent(noise.mean)} of {noise.requests:,}; {allowed}"
    )
    return f"no output is over its noise; nearest: {said}" if finding == "pass" else said


def _interval_text(differences: Differences, alpha: float) -> str:
    return interval_text(difference_of(differences, alpha))

"""What an operator is told of a trial: what was found, how sure that is, and the verdict. Pure."""

from functools import lru_cache

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.evidence.counts import (
    SEGMENTS_MAX,
    Differences,
    OutputEvidence,
    SegmentEvidence,
    Shares,
)
from coalmine_router.observer.evidence.gates import segment_verdicts
from coalmine_router.observer.evidence.interval import Rate, difference_of, rate_of
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.verdict import Gate, Verdict


def trial_counts(trial: Trial, gates: GateSettings) -> pb.ComparisonCounts:
    """Return the evidence of a trial with its intervals, and its verdict."""
    evidence = trial.evidence
    return pb.ComparisonCounts(
        reference=trial.pair.reference,
        candidate=trial.pair.candidate,
        match=evidence.outcomes["match"],
        mismatch=evidence.outcomes["mismatch"],
        error=evidence.outcomes["error"],
        skipped=evidence.outcomes["skipped"],
        ignored=evidence.outcomes["ignored"],
        kinds=dict(evidence.kinds),
        rows=evidence.rows,
        rows_mismatch=evidence.rows_mismatch,
        mismatch_rate=_share(evidence.shares, gates.alpha),
        outputs=[_output(name, of, gates) for name, of in evidence.outputs.items()],
        segments=_segments(trial, gates),
        noise_pairs=evidence.noise_pairs,
        trial=_trial(trial),
        verdict=_verdict(trial.told),
    )


def _trial(trial: Trial) -> pb.Trial:
    return pb.Trial(
        number=trial.number,
        reference_version=trial.key.reference_version,
        candidate_version=trial.key.candidate_version,
        began_ns=trial.began_ns,
        ended_ns=trial.ended_ns,
        why=trial.why,
    )


def _verdict(verdict: Verdict) -> pb.Verdict:
    return pb.Verdict(
        verdict=verdict.verdict,
        reason=verdict.reason,
        at_ns=verdict.at_ns,
        trace_id=verdict.trace_id,
        gates=[_gate(gate) for gate in verdict.gates],
    )


def _gate(gate: Gate) -> pb.Gate:
    return pb.Gate(
        gate=gate.gate,
        finding=gate.finding,
        reason=gate.reason,
        log_fail=gate.log_fail,
        log_pass=gate.log_pass,
        log_needed=gate.log_needed,
        observed=gate.observed,
    )


def _output(name: str, of: OutputEvidence, gates: GateSettings) -> pb.OutputCounts:
    return pb.OutputCounts(
        output=name,
        match=of.match,
        mismatch=of.mismatch,
        max_abs_diff=of.max_abs_diff,
        rows=of.rows,
        rows_mismatch=of.rows_mismatch,
        raw=_share(of.raw, gates.alpha),
        noise=_share(of.noise, gates.alpha),
        beyond_noise=_difference(of.beyond_noise, gates.alpha),
        rule=of.rule,
    )


def _segments(trial: Trial, gates: GateSettings) -> list[pb.Segment]:
    verdicts = segment_verdicts(trial.evidence, gates)
    return [
        _segment(name, of, gates, verdicts.get(name, ""))
        for name, of in trial.evidence.segments.items()
    ]


def _segment(name: str, of: SegmentEvidence, gates: GateSettings, verdict: str) -> pb.Segment:
    return pb.Segment(
        name=name,
        match=of.outcomes["match"],
        mismatch=of.outcomes["mismatch"],
        error=of.outcomes["error"],
        mismatch_rate=_share(of.shares, gates.alpha / SEGMENTS_MAX),
        verdict=verdict,
    )


def _share(shares: Shares, alpha: float) -> pb.Rate | None:
    if not shares.requests:
        return None
    return _rate(_rate_of(shares.mismatch, shares.match, alpha))


def _difference(found: Differences, alpha: float) -> pb.Rate | None:
    if not found.requests:
        return None
    return _rate(_difference_of(found.worse, found.same, found.better, alpha))


def _rate(rate: Rate) -> pb.Rate:
    return pb.Rate(value=rate.value, low=rate.low, high=rate.high, requests=rate.requests)


# An interval takes half a millisecond; most outputs and segments have the sums of another, or those
# that they had when somebody last looked.
@lru_cache(maxsize=8_192)
def _rate_of(mismatch: float, match: float, alpha: float) -> Rate:
    return rate_of(Shares(mismatch, match), alpha)


@lru_cache(maxsize=8_192)
def _difference_of(worse: float, same: float, better: float, alpha: float) -> Rate:
    return difference_of(Differences(worse, same, better), alpha)

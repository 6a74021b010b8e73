"""The status of a trial as a message: counts, intervals and the verdict. Pure."""

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import lru_cache

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.evidence.address_evidence import (
    AddressEvidence,
    AsksReady,
    ReadyAddresses,
    VariantAddresses,
    none_known,
)
from coalmine_router.observer.evidence.counts import (
    SEGMENTS_MAX,
    OutputEvidence,
    SegmentEvidence,
    Shares,
)
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.gates.addresses_gate import standing_out
from coalmine_router.observer.evidence.gates.all_gates import segment_verdicts
from coalmine_router.observer.evidence.interval import Rate, differences_of, rates_of
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.verdict import Gate, Verdict

_Sums = tuple[float, ...]


def trial_counts(
    trial: Trial, gates: GateSettings, asks_ready: AsksReady = none_known
) -> pb.ComparisonCounts:
    """Return the evidence of a trial with its intervals, and its verdict."""
    evidence = trial.evidence
    ready = ReadyAddresses() if trial.ended_ns else ReadyAddresses.of(trial.pair, asks_ready)
    odd = standing_out(evidence, ready, gates, trial.verdict.gate("addresses"))
    sides = evidence.reference_addresses, evidence.candidate_addresses
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
        mismatch_rate=_rates([evidence.shares], gates.alpha)[0],
        outputs=_output_messages(evidence.outputs, gates.alpha),
        segments=_segment_messages(trial, gates),
        noise_pairs=evidence.noise_pairs,
        trial=_trial_message(trial),
        verdict=_verdict_message(trial.shown_verdict),
        reference_addresses=_address_messages(sides[0], ready.reference, odd.reference),
        candidate_addresses=_address_messages(sides[1], ready.candidate, odd.candidate),
        addresses_let_go=sum(side.let_go for side in sides),
    )


def _address_messages(
    side: VariantAddresses, ready: Sequence[str], odd: Container[str]
) -> Iterator[pb.AddressCounts]:
    """Yield the ready addresses in their order, then others that were compared."""
    for name in dict.fromkeys((*ready, *side.by_name)):
        own = side.by_name.get(name) or AddressEvidence()
        yield pb.AddressCounts(
            address=name,
            ready=name in ready,
            compared=own.compared,
            mismatch=own.mismatch,
            failed=own.failed,
            seen_ns=own.max_seen_ns,
            stands_out=name in odd,
        )


def _trial_message(trial: Trial) -> pb.Trial:
    return pb.Trial(
        number=trial.number,
        reference_version=trial.key.reference_version,
        candidate_version=trial.key.candidate_version,
        began_ns=trial.began_ns,
        ended_ns=trial.ended_ns,
        why=trial.why,
    )


def _verdict_message(verdict: Verdict) -> pb.Verdict:
    return pb.Verdict(
        verdict=verdict.verdict,
        reason=verdict.reason,
        at_ns=verdict.at_ns,
        trace_id=verdict.trace_id,
        gates=[_gate_message(gate) for gate in verdict.gates],
    )


def _gate_message(gate: Gate) -> pb.Gate:
    return pb.Gate(
        gate=gate.gate,
        finding=gate.finding,
        reason=gate.reason,
        log_fail=gate.log_fail,
        log_pass=gate.log_pass,
        log_needed=gate.log_needed,
        observed=gate.observed,
        at_ns=gate.at_ns,
    )


def _output_messages(outputs: Mapping[str, OutputEvidence], alpha: float) -> list[pb.OutputCounts]:
    found = list(outputs.values())
    raw = _rates([of.raw for of in found], alpha)
    noise = _rates([of.noise for of in found], alpha)
    beyond = _differences([of.beyond_noise for of in found], alpha)
    return list(map(_output_message, outputs, found, raw, noise, beyond))


def _output_message(
    name: str,
    of: OutputEvidence,
    raw: pb.Rate | None,
    noise: pb.Rate | None,
    beyond_noise: pb.Rate | None,
) -> pb.OutputCounts:
    return pb.OutputCounts(
        output=name,
        match=of.match,
        mismatch=of.mismatch,
        max_abs_diff=of.max_abs_diff,
        rows=of.rows,
        rows_mismatch=of.rows_mismatch,
        raw=raw,
        noise=noise,
        beyond_noise=beyond_noise,
        rule=of.rule,
    )


def _segment_messages(trial: Trial, gates: GateSettings) -> list[pb.Segment]:
    segments, verdicts = trial.evidence.segments, segment_verdicts(trial.evidence, gates)
    rates = _rates([of.shares for of in segments.values()], gates.alpha / SEGMENTS_MAX)
    return [
        _segment_message(name, of, rate, verdicts.get(name, ""))
        for (name, of), rate in zip(segments.items(), rates, strict=True)
    ]


def _segment_message(name: str, of: SegmentEvidence, rate: pb.Rate | None, word: str) -> pb.Segment:
    return pb.Segment(
        name=name,
        match=of.outcomes["match"],
        mismatch=of.outcomes["mismatch"],
        error=of.outcomes["error"],
        mismatch_rate=rate,
        verdict=word,
    )


def _rates(shares: Sequence[Shares], alpha: float) -> list[pb.Rate | None]:
    sums = [(of.mismatch, of.match) for of in shares]
    return _rate_messages(sums, _rates_of(tuple(dict.fromkeys(sums)), alpha))


def _differences(differences: Sequence[Differences], alpha: float) -> list[pb.Rate | None]:
    sums = [(of.worse, of.same, of.better) for of in differences]
    return _rate_messages(sums, _differences_of(tuple(dict.fromkeys(sums)), alpha))


# The intervals of a large trial may take ten milliseconds. Most outputs have the sums of another,
# several people may watch, and ended trials are shown again and again unchanged.
@lru_cache(maxsize=64)
def _rates_of(sums: tuple[tuple[float, float], ...], alpha: float) -> Mapping[_Sums, Rate]:
    return dict(zip(sums, rates_of([Shares(*of) for of in sums], alpha), strict=True))


@lru_cache(maxsize=64)
def _differences_of(
    sums: tuple[tuple[float, float, float], ...], alpha: float
) -> Mapping[_Sums, Rate]:
    return dict(zip(sums, differences_of([Differences(*of) for of in sums], alpha), strict=True))


def _rate_messages(sums: Sequence[_Sums], rates: Mapping[_Sums, Rate]) -> list[pb.Rate | None]:
    return [_rate_message(rates[of]) for of in sums]


def _rate_message(rate: Rate) -> pb.Rate | None:
    if not rate.requests:
        return None
    return pb.Rate(value=rate.value, low=rate.low, high=rate.high, requests=rate.requests)

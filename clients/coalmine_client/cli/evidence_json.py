"""The JSON of evidence, trials and verdicts. Pure; by the rules of as_json.

Of a rate with its interval: null where nothing was counted.
"""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.as_json import Json, by_name, moment, number, rate


def trials(found: pb.ListTrialsResponse) -> Json:
    """Return {trials: [comparison]}, the newest first."""
    return {"trials": [comparison(each) for each in found.trials]}


def comparison(of: pb.ComparisonCounts) -> Json:
    """Return what was found of a candidate beside its reference, in one trial.

    `mismatch_rate` is of requests; `rate` of the rows of a request, in the mean over requests.
    """
    return {
        "reference": of.reference,
        "candidate": of.candidate,
        "trial": _trial(of.trial),
        "verdict": _verdict(of.verdict),
        "match": of.match,
        "mismatch": of.mismatch,
        "error": of.error,
        "skipped": of.skipped,
        "ignored": of.ignored,
        "kinds": by_name(of.kinds),
        "rows": of.rows,
        "rows_mismatch": of.rows_mismatch,
        "mismatch_rate": rate(of.mismatch, of.match + of.mismatch),
        "rate": _interval(of, "mismatch_rate"),
        "noise_pairs": of.noise_pairs,
        "outputs": [_output(each) for each in of.outputs],
        "segments": [_segment(each) for each in of.segments],
        "candidate_addresses": [_address(each) for each in of.candidate_addresses],
        "reference_addresses": [_address(each) for each in of.reference_addresses],
        "addresses_let_go": of.addresses_let_go,
    }


def _address(of: pb.AddressCounts) -> Json:
    return {
        "address": of.address,
        "ready": of.ready,
        "compared": of.compared,
        "mismatch": of.mismatch,
        "failed": of.failed,
        "at": moment(of.seen_ns),
        "stands_out": of.stands_out,
    }


def _trial(of: pb.Trial) -> Json:
    return {
        "number": of.number,
        "reference_version": of.reference_version,
        "candidate_version": of.candidate_version,
        "began": moment(of.began_ns),
        "ended": moment(of.ended_ns),
        "why": of.why,
    }


def _verdict(of: pb.Verdict) -> Json:
    return {
        "verdict": of.verdict,
        "reason": of.reason,
        "at": moment(of.at_ns),
        "trace_id": of.trace_id.hex(),
        "gates": [_gate(each) for each in of.gates],
    }


def _gate(of: pb.Gate) -> Json:
    return {
        "gate": of.gate,
        "finding": of.finding,
        "reason": of.reason,
        "log_fail": number(of.log_fail),
        "log_pass": number(of.log_pass),
        "log_needed": number(of.log_needed),
        "observed": of.observed,
        "at": moment(of.at_ns),
    }


def _output(of: pb.OutputCounts) -> Json:
    return {
        "output": of.output,
        "match": of.match,
        "mismatch": of.mismatch,
        "max_abs_diff": number(of.max_abs_diff),
        "rule": of.rule,
        "rows": of.rows,
        "rows_mismatch": of.rows_mismatch,
        "raw": _interval(of, "raw"),
        "noise": _interval(of, "noise"),
        "beyond_noise": _interval(of, "beyond_noise"),
    }


def _segment(of: pb.Segment) -> Json:
    return {
        "name": of.name,
        "verdict": of.verdict,
        "match": of.match,
        "mismatch": of.mismatch,
        "error": of.error,
        "rate": _interval(of, "mismatch_rate"),
    }


def _interval(of: pb.ComparisonCounts | pb.OutputCounts | pb.Segment, name: str) -> Json | None:
    if not of.HasField(name):  # type: ignore[arg-type]  # a field of that message
        return None
    found: pb.Rate = getattr(of, name)
    return {
        "value": number(found.value),
        "low": number(found.low),
        "high": number(found.high),
        "requests": found.requests,
    }

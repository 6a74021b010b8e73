"""How verdicts look to the operator: the word, why, and how far the evidence is. Pure."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.addresses_view import address_lines
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    STRONG,
    Cell,
    add_row,
    indented_line,
    line,
    moment,
    table,
)
from coalmine_client.cli.percents import interval_text, share_text

SEGMENTS_SHOWN = 10

_STYLES = {"pass": GOOD, "fail": BAD, "alarm": BAD, "inconclusive": DOUBTFUL}
_BADNESS = {"fail": 0, "inconclusive": 1, "pass": 2}
# The findings whose reasons make that of a verdict.
_TELLING = {"fail": {"fail", "alarm"}, "pass": {"pass"}, "inconclusive": {"alarm"}}
# The gates without which there is no PASS.
_NEEDED = {"mismatch", "errors"}
# The gates that never fail a candidate.
_ALARMING = {"split", "addresses"}
_INDENT = "  "
_BAR_CELLS = 10


def verdict_blocks(status: pb.RouteStatus) -> Iterator[RenderableType]:
    """Yield a block for each candidate: its verdict, trial, gates, rates and segments."""
    for found in status.comparisons:
        if found.HasField("verdict"):
            yield line()
            yield from verdict_block(found)
    if words := comparing_text(status.comparing):
        yield line()
        yield line((words, DOUBTFUL))


def verdict_block(found: pb.ComparisonCounts) -> Iterator[RenderableType]:
    """Yield the block of one candidate."""
    pair = f"{found.candidate} against {found.reference}"
    said = dated_reason(found.verdict)
    yield indented_line(2, verdict_word(found.verdict.verdict), "  ", (pair, STRONG), "  ", said)
    yield indented_line(4, (f"{_INDENT}{_trial_text(found)}", FAINT))
    if found.verdict.gates:
        yield _gates_table(found.verdict)
    if found.HasField("mismatch_rate"):
        yield _rates_table(found)
    yield from address_lines(found)
    yield from _segment_lines(found.segments)


def verdict_word(verdict: str) -> tuple[str, str]:
    """Return a verdict in capitals, with its style."""
    return verdict.upper() or "-", f"{STRONG} {_STYLES.get(verdict, FAINT)}"


def badness(verdict: str) -> int:
    """Return the place of a verdict in a list that has the worst first."""
    return _BADNESS.get(verdict, len(_BADNESS))


def dated_reason(of: pb.Verdict) -> str:
    """Return why it is what it is; where the figures are not of now, it says of when.

    What a gate has decided stays, with the figures of that moment; while it is open, they are of
    now.
    """
    telling = _TELLING.get(of.verdict, set())
    told = [gate for gate in of.gates if gate.finding in telling and gate.reason]
    if "; ".join(gate.reason for gate in told) != of.reason:
        return _with_time(of.reason, of.at_ns if of.verdict in {"pass", "fail"} else 0)
    at_ns = {gate.at_ns or of.at_ns for gate in told}
    if len(at_ns) == 1:
        return _with_time(of.reason, *at_ns)
    return "; ".join(_with_time(gate.reason, gate.at_ns or of.at_ns) for gate in told)


def _with_time(reason: str, at_ns: int) -> str:
    return f"at {moment(at_ns)}: {reason}" if at_ns and reason else reason


def way_to_verdict(of: pb.Verdict) -> str:
    """Return how far it is to a verdict; "" for one that is decided, or hangs on nothing open."""
    if of.verdict != "inconclusive" or any(gate.finding == "alarm" for gate in of.gates):
        return ""
    ways = (way_text(gate) for gate in of.gates if gate.gate in _NEEDED)
    return next(filter(None, ways), "")


def _trial_text(found: pb.ComparisonCounts) -> str:
    trial, at = found.trial, found.verdict.at_ns
    parts = [f"trial {trial.number} since {moment(trial.began_ns)}"]
    if trial.number > 1 and trial.why:
        parts.append(f"begun by a change of {trial.why}")
    parts.append(f"versions {versions_text(trial)}")
    if found.verdict.verdict in {"pass", "fail"} and at:
        by = f" by trace {found.verdict.trace_id.hex()}" if found.verdict.trace_id else ""
        parts.append(f"decided {moment(at)}{by}")
    return " · ".join(parts)


def versions_text(trial: pb.Trial) -> str:
    """Return the candidate's version against the reference's; a question mark for unknown ones."""
    return f"{trial.candidate_version or '?'} against {trial.reference_version or '?'}"


# ---------------------------------------------------------------- gates


def _gates_table(of: pb.Verdict) -> RenderableType:
    rows = table(f"{_INDENT}gate", "finding", "=evidence", ">observed", "")
    for gate in of.gates:
        add_row(
            rows,
            f"{_INDENT}{gate.gate}",
            (gate.finding, _STYLES.get(gate.finding, "")),
            progress_bar(gate),
            f"{gate.observed:,}",
            _with_time(gate.reason, gate.at_ns) if gate.reason != of.reason else "",
        )
    return rows


def progress_bar(gate: pb.Gate) -> str:
    """Return how far the evidence of an open gate is: `█████░░░  63 % of the way to PASS`."""
    if not (words := way_text(gate)):
        return ""
    full = round(_nearer_end(gate)[1] * _BAR_CELLS)
    return f"{'█' * full}{'░' * (_BAR_CELLS - full)} {words}"


def way_text(gate: pb.Gate) -> str:
    """Return how far the evidence of an open gate is, in words; "" for one that is decided."""
    if gate.finding != "open" or gate.log_needed <= 0:
        return ""
    end, share = _nearer_end(gate)
    return f"{share:.0%} of the way to {end}"


def _nearer_end(gate: pb.Gate) -> tuple[str, float]:
    """Return the end that the evidence is nearer to, and the share of the way: never all of it."""
    end, log = max((("FAIL", gate.log_fail), ("PASS", gate.log_pass)), key=lambda each: each[1])
    share = min(max(log / gate.log_needed, 0.0), 0.99)
    return ("an alarm" if gate.gate in _ALARMING else end), share


# ---------------------------------------------------------------- rates


def _rates_table(found: pb.ComparisonCounts) -> RenderableType:
    columns = [f"{_INDENT}of a request's rows", "rule", ">mismatch", ">interval"]
    if found.noise_pairs:
        columns += [">noise", ">beyond noise", ">interval"]
    rows = table(*columns)
    whole: list[Cell] = [f"{_INDENT}in any output", "", *_rate_cells(found.mismatch_rate)]
    add_row(rows, *whole, *[""] * (len(columns) - len(whole)))
    for of in found.outputs:
        cells: list[Cell] = [f"{_INDENT}{of.output}", of.rule]
        cells += _rate_cells(of.raw) if of.HasField("raw") else ["-", ""]
        if found.noise_pairs:
            cells += [share_text(of.noise.value) if of.HasField("noise") else "-"]
            cells += _rate_cells(of.beyond_noise) if of.HasField("beyond_noise") else ["-", ""]
        add_row(rows, *cells)
    return rows


def _rate_cells(rate: pb.Rate) -> list[Cell]:
    return [share_text(rate.value), interval_text(rate.low, rate.high)]


# ---------------------------------------------------------------- segments


def _segment_lines(segments: Sequence[pb.Segment]) -> Iterator[RenderableType]:
    """Yield the segments, the worst first, and how many more there are."""
    if not segments:
        return
    rows = table(
        f"{_INDENT}segment", "verdict", ">match", ">mismatch", ">error", ">rate", ">interval"
    )
    for of in sorted(segments, key=_segment_order)[:SEGMENTS_SHOWN]:
        add_row(
            rows,
            f"{_INDENT}{of.name}",
            (of.verdict or "-", _STYLES.get(of.verdict, "")),
            f"{of.match:,}",
            (f"{of.mismatch:,}", BAD if of.mismatch else ""),
            (f"{of.error:,}", BAD if of.error else ""),
            *(_rate_cells(of.mismatch_rate) if of.HasField("mismatch_rate") else ["-", ""]),
        )
    yield rows
    if (more := len(segments) - SEGMENTS_SHOWN) > 0:
        yield line((f"{_INDENT}and {more} more", FAINT))


def _segment_order(of: pb.Segment) -> tuple[int, float, float, str]:
    return badness(of.verdict), -of.mismatch_rate.low, -of.mismatch_rate.value, of.name


# ---------------------------------------------------------------- keeping up


def comparing_text(of: pb.Comparing) -> str:
    """Return how what compares falls behind; "" where it keeps up, and always has."""
    waiting = f"{of.waiting:,} wait ({of.waiting_bytes / 2**20:,.1f} MiB)"
    left_out = f"{of.left_out:,} left out so far"
    if of.share_bp < 10_000 and (of.waiting or of.left_out or of.compared):
        among = f"1 in {10_000 / of.share_bp:.3g}" if of.share_bp else "none"
        return f"comparing {among}: {waiting}, {left_out}, {of.processes} processes compare"
    return f"comparing all: {waiting}, {left_out}" if of.left_out else ""

"""What a compare span says: searchable by equality, and small whatever was compared. Pure.

Jaeger finds attributes by equality alone, all of a search on one span. So what would be a list or
a threshold elsewhere is an attribute for each output that differs and each power of ten exceeded.
"""

import math
from typing import Final

from coalmine import telemetry as t
from coalmine_router.observer.comparison.result import Comparison, Difference, Element
from coalmine_router.observer.observed_request import PairResult
from coalmine_router.observer.output.span_values import Value, Values, named, said

OUTPUTS_MAX: Final = 32
ELEMENTS_MAX: Final = 8
# The thresholds that a search may name.
_EXPONENTS: Final = range(-6, 4)


def comparison(found: PairResult) -> Values:
    """Return who was compared, and what came out."""
    compared = found.comparison
    told: dict[str, Value | None] = {
        t.COMPARE_ROLE: found.role,
        t.COMPARE_REFERENCE: found.reference,
        t.COMPARE_CANDIDATE: found.candidate,
        t.COMPARE_REFERENCE_VERSION: found.reference_version,
        t.COMPARE_CANDIDATE_VERSION: found.candidate_version,
        t.COMPARE_REFERENCE_ADDRESS: found.reference_address,
        t.COMPARE_CANDIDATE_ADDRESS: found.candidate_address,
        t.TRIAL: found.trial or None,
        t.COMPARE_OUTCOME: compared.outcome,
        t.COMPARE_KIND: compared.kind,
        t.COMPARE_NOISE: found.noise.outcome if found.noise else None,
        t.COMPARE_ROWS: compared.rows or None,
        t.COMPARE_ROWS_MISMATCH: compared.rows_mismatch or None,
        t.COMPARE_OUTPUTS_DIFFERING: compared.outputs_differing or None,
    }
    return said(told) | _distance(compared) | _outputs(compared)


def _distance(found: Comparison) -> Values:
    """Return how far the values differ, where values were compared."""
    distance = found.max_abs_diff
    compared = found.outcome == "match" or found.kind in {"nan", "value"}
    # Where labels differ, not every rule measures how far the values behind them lie apart.
    if not (compared or (found.kind == "label" and distance)):
        return {}
    return {
        t.COMPARE_DIFF_BUCKET: diff_bucket(distance),
        # Infinity has no place in JSON; its bucket says it.
        **({t.COMPARE_MAX_ABS_DIFF: distance} if math.isfinite(distance) else {}),
        **{
            f"{t.COMPARE_OVER_PREFIX}1e{exponent}": True
            for exponent in _EXPONENTS
            if distance > float(f"1e{exponent}")
        },
    }


def _outputs(found: Comparison) -> Values:
    differing = [each.output for each in found.differences[:OUTPUTS_MAX] if each.output]
    return {named(t.COMPARE_OUTPUT_PREFIX, name): "mismatch" for name in differing}


def diff_bucket(max_abs_diff: float) -> str:
    """Return the power of ten at or above, as text such as 1e-6; "0" and "inf" are themselves."""
    if max_abs_diff == 0 or not math.isfinite(max_abs_diff):
        return f"{max_abs_diff:g}"
    exponent = math.ceil(math.log10(max_abs_diff))
    return f"1e{exponent}"


def difference(found: Difference) -> Values:
    """Return how one output differs; its worst elements side by side, eight at most."""
    worst = found.worst[:ELEMENTS_MAX]
    return said(
        {
            t.DIFFERENCE_NAME: found.output,
            t.DIFFERENCE_KIND: found.kind,
            t.DIFFERENCE_INDEX: _joined([_index(each) for each in worst]),
            t.DIFFERENCE_EXPECTED: _joined([each.expected for each in worst]),
            t.DIFFERENCE_ACTUAL: _joined([each.actual for each in worst]),
            t.DIFFERENCE_ROWS: found.rows or None,
            t.DIFFERENCE_ROWS_MISMATCH: found.rows_mismatch or None,
            t.DIFFERENCE_MAX_ABS_DIFF: found.max_abs_diff or None,
            t.DIFFERENCE_RULE: found.rule,
            t.DIFFERENCE_SCORE: found.score,
        }
    )


def _index(element: Element) -> str:
    return str(list(element.index)) if element.index else ""


def _joined(texts: list[str]) -> str:
    return ", ".join(text for text in texts if text)

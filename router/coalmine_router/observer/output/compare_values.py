"""The attributes of a compare span: few, small and searchable by equality. Pure.

Jaeger finds attributes by equality alone, and all of a search on one span. So each output that
differs, and each power of ten that is exceeded, has an attribute of its own.
"""

import math
from typing import Final

from coalmine import telemetry as t
from coalmine_router.observer.comparison.result import Comparison, Difference, Element
from coalmine_router.observer.observed_request import PairResult
from coalmine_router.observer.output.span_values import Value, Values, attribute_name, non_empty

OUTPUTS_MAX: Final = 32
ELEMENTS_MAX: Final = 8
# The thresholds that a search may name.
_EXPONENTS: Final = range(-6, 4)


def comparison_values(found: PairResult) -> Values:
    """Return which variants were compared, and the result."""
    compared = found.comparison
    fields: dict[str, Value | None] = {
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
    return non_empty(fields) | _distance_values(compared) | _differing_outputs(compared)


def _distance_values(found: Comparison) -> Values:
    """Return how far the values differ, where values were compared."""
    distance = found.max_abs_diff
    compared = found.outcome == "match" or found.kind in {"nan", "value"}
    # Of rules that compare labels, only some measure how far the values lie apart.
    if not (compared or (found.kind == "label" and distance)):
        return {}
    return {
        t.COMPARE_DIFF_BUCKET: diff_bucket(distance),
        # JSON has no infinity; the bucket holds it.
        **({t.COMPARE_MAX_ABS_DIFF: distance} if math.isfinite(distance) else {}),
        **{
            f"{t.COMPARE_OVER_PREFIX}1e{exponent}": True
            for exponent in _EXPONENTS
            if distance > float(f"1e{exponent}")
        },
    }


def _differing_outputs(found: Comparison) -> Values:
    differing = [each.output for each in found.differences[:OUTPUTS_MAX] if each.output]
    return {attribute_name(t.COMPARE_OUTPUT_PREFIX, name): "mismatch" for name in differing}


def diff_bucket(max_abs_diff: float) -> str:
    """Return the power of ten at or above it, as text such as 1e-6; "0" and "inf" stay."""
    if max_abs_diff == 0 or not math.isfinite(max_abs_diff):
        return f"{max_abs_diff:g}"
    exponent = math.ceil(math.log10(max_abs_diff))
    return f"1e{exponent}"


def difference_values(found: Difference) -> Values:
    """Return how one output differs, with eight of its worst elements at most."""
    worst = found.worst[:ELEMENTS_MAX]
    return non_empty(
        {
            t.DIFFERENCE_NAME: found.output,
            t.DIFFERENCE_KIND: found.kind,
            t.DIFFERENCE_INDEX: _comma_list([_index_text(each) for each in worst]),
            t.DIFFERENCE_EXPECTED: _comma_list([each.expected for each in worst]),
            t.DIFFERENCE_ACTUAL: _comma_list([each.actual for each in worst]),
            t.DIFFERENCE_ROWS: found.rows or None,
            t.DIFFERENCE_ROWS_MISMATCH: found.rows_mismatch or None,
            t.DIFFERENCE_MAX_ABS_DIFF: found.max_abs_diff or None,
            t.DIFFERENCE_RULE: found.rule,
            t.DIFFERENCE_SCORE: found.score,
        }
    )


def _index_text(element: Element) -> str:
    return str(list(element.index)) if element.index else ""


def _comma_list(texts: list[str]) -> str:
    return ", ".join(text for text in texts if text)

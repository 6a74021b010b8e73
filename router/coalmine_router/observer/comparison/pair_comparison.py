"""Compares two answers: names, datatypes, shapes, then values. Pure.

Comparing never fails: whatever the two sides hold, there is an outcome.
"""

from collections.abc import Sequence

import numpy as np

from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.answer_arrays import AnswerArrays
from coalmine_router.observer.comparison.output_comparison import (
    OutputComparison,
    OutputSpec,
    output_comparison,
)
from coalmine_router.observer.comparison.result import (
    DIFFERENCES_MAX,
    KINDS,
    Comparison,
    OutputResult,
    RuleWarning,
)
from coalmine_router.observer.comparison.rows import row_count
from coalmine_router.observer.comparison.statuses import whole_comparison


def pair_comparison(
    reference: AnswerArrays, candidate: AnswerArrays, rules: CompareConfig
) -> tuple[Comparison, list[RuleWarning]]:
    """Return how the candidate's outputs compare with the reference's, and what to warn of."""
    if reference.problem:
        return Comparison("skipped", "malformed"), []
    if candidate.problem:
        return whole_comparison(
            "mismatch", "malformed", "a ModelInferResponse", candidate.problem
        ), []
    expected, actual = reference.tensors, candidate.tensors
    rows = row_count(expected, actual, rules)
    outputs = [
        output_comparison(
            OutputSpec(name, rules.outputs.get(name, rules.default), rows),
            expected.get(name),
            actual.get(name),
        )
        for name in (expected if expected.keys() == actual.keys() else {**expected, **actual})
    ]
    warnings = [each.warning for each in outputs if each.warning is not None]
    return _comparison_of(outputs, rows or 1), warnings


def _comparison_of(outputs: Sequence[OutputComparison], rows: int) -> Comparison:
    results = tuple(each.result for each in outputs)
    outcomes = {each.outcome for each in results}
    if "mismatch" in outcomes:
        return _mismatch_of(outputs, results, rows)
    if "match" in outcomes:
        largest = max(each.max_abs_diff for each in results)
        return Comparison("match", outputs=results, rows=rows, max_abs_diff=largest)
    if outcomes == {"ignored"}:
        return Comparison("ignored", outputs=results)
    failed = any(each.reason == "rule" for each in results)
    return Comparison("skipped", "rule" if failed else "nothing", outputs=results)


def _mismatch_of(
    outputs: Sequence[OutputComparison], results: tuple[OutputResult, ...], rows: int
) -> Comparison:
    differences = [each.difference for each in results if each.difference is not None]
    differences.sort(key=lambda difference: KINDS.index(difference.kind))
    rows_differ = np.zeros(rows, bool)
    for each in outputs:
        if each.rows_differ is not None:
            rows_differ |= each.rows_differ
    return Comparison(
        "mismatch",
        differences[0].kind,
        differences=tuple(differences[:DIFFERENCES_MAX]),
        outputs_differing=len(differences),
        outputs=results,
        rows=rows,
        rows_mismatch=int(np.count_nonzero(rows_differ)),
        max_abs_diff=max(each.max_abs_diff for each in results),
    )

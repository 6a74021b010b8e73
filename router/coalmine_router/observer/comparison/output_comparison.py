"""Compares one output of two answers: its presence, its form, then its values. Pure."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from coalmine.tensors import Array, Tensor
from coalmine_router.config.compare_section import IgnoreRule, RuleConfig
from coalmine_router.observer.comparison.result import (
    Difference,
    Element,
    Kind,
    OutputResult,
    RuleWarning,
)
from coalmine_router.observer.comparison.rule_result import Mask, RuleResult
from coalmine_router.observer.comparison.rules import RuleProblem, result_of


class OutputSpec(NamedTuple):
    """How an output is compared: `rows` is the answers' batch size, None where they have none."""

    name: str
    rule: RuleConfig
    rows: int | None


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """The result of one output, and which of the answers' rows differ: None where none does."""

    result: OutputResult
    rows_differ: Mask | None = None
    warning: RuleWarning | None = None


def output_comparison(
    spec: OutputSpec, expected: Tensor | None, actual: Tensor | None
) -> OutputComparison:
    """Return how one output compares. A side that lacks it is None; never both are."""
    if isinstance(spec.rule, IgnoreRule):
        return OutputComparison(OutputResult(spec.name, "ignored", rule=spec.rule.rule))
    if expected is None or actual is None:
        return _form_mismatch(spec, *_one_sided_difference(expected, actual))
    if expected.datatype != actual.datatype:
        return _form_mismatch(spec, "datatype", expected.datatype, actual.datatype)
    if expected.array.shape != actual.array.shape:
        return _form_mismatch(spec, "shape", _shape_text(expected), _shape_text(actual))
    if not expected.array.size:
        return OutputComparison(_skip_result(spec, "nothing"))
    return _comparison_by_values(spec, expected, actual)


# ---------------------------------------------------------------- its form


def _one_sided_difference(expected: Tensor | None, actual: Tensor | None) -> tuple[Kind, str, str]:
    if expected is not None:
        return "missing", f"{expected.datatype} {_shape_text(expected)}", "no such output"
    return "extra", "no such output", f"{actual.datatype} {_shape_text(actual)}" if actual else ""


def _shape_text(tensor: Tensor) -> str:
    return str(list(tensor.array.shape))


def _skip_result(spec: OutputSpec, reason: Literal["nothing", "rule"]) -> OutputResult:
    return OutputResult(spec.name, "skipped", rows=0, rule=spec.rule.rule, reason=reason)


def _form_mismatch(spec: OutputSpec, kind: Kind, expected: str, actual: str) -> OutputComparison:
    """Return an output that differs as a whole, and so in every row."""
    rows = spec.rows or 1
    worst = (Element((), expected, actual),)
    found = Difference(spec.name, kind, worst, rows=rows, rows_mismatch=rows, rule=spec.rule.rule)
    return OutputComparison(_mismatch_result(found), np.ones(rows, bool))


def _mismatch_result(found: Difference) -> OutputResult:
    return OutputResult(
        found.output,
        "mismatch",
        found.rows,
        found.rows_mismatch,
        found.max_abs_diff,
        found.rule,
        found,
    )


# ---------------------------------------------------------------- its values


def _comparison_by_values(spec: OutputSpec, expected: Tensor, actual: Tensor) -> OutputComparison:
    r, c = expected.array, actual.array
    is_same = _is_known_equal(r, c)
    is_batched = r.ndim > 0 and len(r) == spec.rows
    if not is_batched:
        r, c = r[None], c[None]
    found = result_of(spec.rule, expected.datatype, r, c, is_same=is_same)
    if isinstance(found, RuleProblem):
        warning = RuleWarning(found.kind, spec.name, found.text)
        return OutputComparison(_skip_result(spec, "rule"), warning=warning)
    if found.rows_differ is None:
        result = OutputResult(spec.name, "match", len(r), 0, found.max_abs_diff, spec.rule.rule)
        return OutputComparison(result)
    difference = _difference_of(spec, found, is_batched=is_batched)
    return OutputComparison(_mismatch_result(difference), found.rows_differ)


def _is_known_equal(expected: Array, actual: Array) -> bool:
    """Return whether two arrays are known to be equal: one and the same, or of the same bytes."""
    if expected is actual:
        return True
    ours, theirs = expected.base, actual.base
    return isinstance(ours, bytes) and isinstance(theirs, bytes) and ours == theirs


def _difference_of(spec: OutputSpec, found: RuleResult, *, is_batched: bool) -> Difference:
    differ = found.rows_differ if found.rows_differ is not None else np.zeros(1, bool)
    return Difference(
        output=spec.name,
        kind=found.kind or "value",
        worst=found.worst if is_batched else _without_row_index(found.worst),
        max_abs_diff=found.max_abs_diff,
        differing=found.differing,
        elements=found.elements,
        rows=len(differ),
        rows_mismatch=int(np.count_nonzero(differ)),
        rule=spec.rule.rule,
        score=found.score,
        badness=found.badness,
    )


def _without_row_index(worst: tuple[Element, ...]) -> tuple[Element, ...]:
    return tuple(Element(each.index[1:], each.expected, each.actual) for each in worst)

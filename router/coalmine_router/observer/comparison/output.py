"""One output of two answers: whether it is there, of one form, and then of equal values. Pure."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from coalmine.tensors import Array, Tensor
from coalmine_router.config.compare_section import IgnoreRule, RuleConfig
from coalmine_router.observer.comparison.measured import Mask, Measured
from coalmine_router.observer.comparison.result import (
    Difference,
    Element,
    Kind,
    OutputResult,
    Warned,
)
from coalmine_router.observer.comparison.rules import RuleRefused, measured


class ElementPlace(NamedTuple):
    """An output's name, its rule, and how many rows the answers have; None: they aren't batched."""

    name: str
    rule: RuleConfig
    rows: int | None


@dataclass(frozen=True, slots=True)
class JudgedOutput:
    """A result, and which of the answers' rows differ: None where none does."""

    result: OutputResult
    rows_differ: Mask | None = None
    warned: Warned | None = None


def judged(place: ElementPlace, expected: Tensor | None, actual: Tensor | None) -> JudgedOutput:
    """Return what is found of one output; a side that lacks it is None, but never both."""
    if isinstance(place.rule, IgnoreRule):
        return JudgedOutput(OutputResult(place.name, "ignored", rule=place.rule.rule))
    if expected is None or actual is None:
        return _differs(place, *_absent(expected, actual))
    if expected.datatype != actual.datatype:
        return _differs(place, "datatype", expected.datatype, actual.datatype)
    if expected.array.shape != actual.array.shape:
        return _differs(place, "shape", _shape(expected), _shape(actual))
    if not expected.array.size:
        return JudgedOutput(_skipped(place, "nothing"))
    return _by_values(place, expected, actual)


# ---------------------------------------------------------------- its form


def _absent(expected: Tensor | None, actual: Tensor | None) -> tuple[Kind, str, str]:
    if expected is not None:
        return "missing", f"{expected.datatype} {_shape(expected)}", "no such output"
    told = f"{actual.datatype} {_shape(actual)}" if actual is not None else ""
    return "extra", "no such output", told


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.array.shape))


def _skipped(place: ElementPlace, reason: Literal["nothing", "rule"]) -> OutputResult:
    return OutputResult(place.name, "skipped", rows=0, rule=place.rule.rule, reason=reason)


def _differs(place: ElementPlace, kind: Kind, expected: str, actual: str) -> JudgedOutput:
    """Return an output that differs as a whole, which is in every row."""
    rows = place.rows or 1
    worst = (Element((), expected, actual),)
    found = Difference(place.name, kind, worst, rows=rows, rows_mismatch=rows, rule=place.rule.rule)
    return JudgedOutput(_mismatch(found), np.ones(rows, bool))


def _mismatch(found: Difference) -> OutputResult:
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


def _by_values(place: ElementPlace, expected: Tensor, actual: Tensor) -> JudgedOutput:
    r, c = expected.array, actual.array
    is_same = _is_same(r, c)
    is_batched = r.ndim > 0 and len(r) == place.rows
    if not is_batched:
        r, c = r[None], c[None]
    found = measured(place.rule, expected.datatype, r, c, is_same=is_same)
    if isinstance(found, RuleRefused):
        what: Literal["rule_unfit", "rule_failed"] = (
            "rule_unfit" if found.is_unfit else "rule_failed"
        )
        return JudgedOutput(_skipped(place, "rule"), warned=Warned(what, place.name, found.told))
    if found.rows_differ is None:
        result = OutputResult(place.name, "match", len(r), 0, found.max_abs_diff, place.rule.rule)
        return JudgedOutput(result)
    difference = _difference(place, found, is_batched=is_batched)
    return JudgedOutput(_mismatch(difference), found.rows_differ)


def _is_same(expected: Array, actual: Array) -> bool:
    """Return whether two arrays are known to be equal: one and the same, or of the same bytes."""
    if expected is actual:
        return True
    ours, theirs = expected.base, actual.base
    return isinstance(ours, bytes) and isinstance(theirs, bytes) and ours == theirs


def _difference(place: ElementPlace, found: Measured, *, is_batched: bool) -> Difference:
    differ = found.rows_differ if found.rows_differ is not None else np.zeros(1, bool)
    return Difference(
        output=place.name,
        kind=found.kind or "value",
        worst=found.worst if is_batched else _without_row(found.worst),
        max_abs_diff=found.max_abs_diff,
        differing=found.differing,
        elements=found.elements,
        rows=len(differ),
        rows_mismatch=int(np.count_nonzero(differ)),
        rule=place.rule.rule,
        score=found.score,
        badness=found.badness,
    )


def _without_row(worst: tuple[Element, ...]) -> tuple[Element, ...]:
    return tuple(Element(each.index[1:], each.expected, each.actual) for each in worst)

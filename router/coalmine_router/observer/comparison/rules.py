"""The rules as rows of one table: what each takes, and how it is applied. Pure, as own rules are.

A new rule needs its settings (config/compare_section.py), a module that measures, and a row here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from coalmine.tensors import BYTES, DATATYPES, Array
from coalmine_router.config import compare_section as config
from coalmine_router.config.compare_section import RuleConfig
from coalmine_router.observer.comparison.closeness import close, exact, relative, tolerance_of
from coalmine_router.observer.comparison.ranking import argmax, top_k
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.rule_result import (
    RuleResult,
    as_text,
    finite_score,
    orderable_badness,
    worst_first,
)
from coalmine_router.observer.comparison.trees import TreeTolerance, json_trees, tree_tolerance
from coalmine_router.observer.comparison.vectors import cosine, distribution
from coalmine_router.own_rule import OwnRule, RowResult

# A rule of one's own is called once for each row: beyond, one answer would take minutes.
OWN_ROWS_MAX: Final = 65_536

_ALL: Final = frozenset(DATATYPES)
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_NUMBERS: Final = _ALL - {BYTES, "BOOL"}
_STRINGS: Final = frozenset({BYTES})


class RuleFailed(Exception):
    """A rule raised, or returned what isn't a result."""


class RuleProblem(NamedTuple):
    """Why a rule couldn't judge an output."""

    kind: Literal["rule_unfit", "rule_failed"]
    text: str


class RuleRow(NamedTuple):
    """A rule: the datatypes it takes, and what it finds of two outputs.

    `vector_problem` is set for rules that judge vectors along the last axis: it returns what is
    wrong with vectors of that length. `judges_equal`: two equal outputs can be a mismatch.
    """

    datatypes: frozenset[str]
    result: Callable[[Any, str, Array, Array], RuleResult]
    vector_problem: Callable[[Any, int], str] | None = None
    judges_equal: bool = False


def is_of_vectors(rule: RuleConfig) -> bool:
    """Return whether a rule needs a dimension beside that of the rows."""
    return not isinstance(rule, config.IgnoreRule) and _rule_row(rule).vector_problem is not None


def result_of(
    rule: RuleConfig, datatype: str, reference: Array, candidate: Array, *, is_same: bool
) -> RuleResult | RuleProblem:
    """Return what a rule finds of two outputs, or why it can't judge them. Never raises.

    Shapes: both (rows, …), equal, with elements. `is_same`: every bit is known to be.
    """
    row = _rule_row(rule)
    problem = _unfit_reason(rule, row, datatype, reference.shape)
    if problem:
        return RuleProblem("rule_unfit", problem)
    if is_same and not row.judges_equal:
        return RuleResult(reference.size)
    try:
        return row.result(rule, datatype, reference, candidate)
    except Exception as error:  # noqa: BLE001 - own rules raise whatever; none is worth the observer's life
        return RuleProblem("rule_failed", as_text(f"{type(error).__name__}: {error}"))


def _rule_row(rule: RuleConfig) -> RuleRow:
    if isinstance(rule, OwnRule):  # what it finds of equal outputs is for it to say
        return RuleRow(rule.datatypes, _by_own_rule, judges_equal=True)
    return ROWS[type(rule)]


def _unfit_reason(rule: RuleConfig, row: RuleRow, datatype: str, shape: tuple[int, ...]) -> str:
    if datatype not in row.datatypes:
        return f"{rule.rule} takes no {datatype}"
    if isinstance(rule, OwnRule) and shape[0] > OWN_ROWS_MAX:
        return f"{shape[0]} rows, at most {OWN_ROWS_MAX} are given to a rule of one's own"
    if row.vector_problem is None:
        return ""
    if len(shape) < 2:
        return f"{rule.rule} takes vectors: each row is one number"
    return row.vector_problem(rule, shape[-1])


def _two_labels_problem(rule: RuleConfig, labels: int) -> str:
    if labels < 2:
        return f"{rule.rule} takes two labels or more: with one, every answer is the same"
    return ""


def _k_labels_problem(rule: config.TopKRule, labels: int) -> str:
    if not rule.order and rule.k >= labels:
        return f"k is {rule.k}, of {labels} labels: every answer has them all on top"
    return _two_labels_problem(rule, labels)


# ---------------------------------------------------------------- each rule, with its settings


def _by_close(rule: config.CloseRule, datatype: str, r: Array, c: Array) -> RuleResult:
    rtol, atol = tolerance_of(datatype, rule.rtol, rule.atol)
    return close(r, c, rtol=rtol, atol=atol)


def _by_exact(_rule: config.ExactRule | config.BytesRule, _: str, r: Array, c: Array) -> RuleResult:
    return exact(r, c)


def _by_relative(rule: config.RelativeRule, _: str, r: Array, c: Array) -> RuleResult:
    return relative(r, c, most=rule.max, floor=rule.floor)


def _by_argmax(rule: config.ArgmaxRule, _: str, r: Array, c: Array) -> RuleResult:
    return argmax(r, c, margin=rule.margin)


def _by_top_k(rule: config.TopKRule, _: str, r: Array, c: Array) -> RuleResult:
    min_tau = rule.min_tau if rule.order else None
    k = min(rule.k, r.shape[-1])
    return top_k(r, c, k=k, min_overlap=rule.min_overlap, min_tau=min_tau)


def _by_cosine(rule: config.CosineRule, _: str, r: Array, c: Array) -> RuleResult:
    return cosine(r, c, least=rule.min)


def _by_distribution(rule: config.DistributionRule, _: str, r: Array, c: Array) -> RuleResult:
    return distribution(r, c, source=rule.source, most=rule.max)


def _by_json(rule: config.JsonRule, _: str, r: Array, c: Array) -> RuleResult:
    return json_trees(r, c, _tolerance_of(rule))


@lru_cache(maxsize=256)
def _tolerance_of(rule: config.JsonRule) -> TreeTolerance:
    return tree_tolerance(rule.rtol, rule.atol, rule.ignore)


# ---------------------------------------------------------------- rules of one's own


def _by_own_rule(rule: OwnRule, _: str, reference: Array, candidate: Array) -> RuleResult:
    ours, theirs = _read_only_view(reference), _read_only_view(candidate)
    results = [_row_result(rule.measure(ours[at, ...], theirs[at, ...])) for at in range(len(ours))]
    differ = np.array([each.is_mismatch for each in results], dtype=bool)
    if not differ.any():
        return RuleResult(len(results))
    worst = _worst_rows(results)
    badness = results[worst[0]].badness
    return RuleResult(
        elements=len(results),
        differing=int(np.count_nonzero(differ)),
        kind="value",
        worst=tuple(
            Element((i,), as_text(results[i].expected), as_text(results[i].actual)) for i in worst
        ),
        rows_differ=differ,
        score=finite_score(results[worst[0]].score),
        badness=None if badness is None else orderable_badness(float(badness)),
    )


def _worst_rows(results: Sequence[RowResult]) -> list[int]:
    """Return the rows that differ, the worst first, eight at most; of equals, the first."""
    differ = [at for at, each in enumerate(results) if each.is_mismatch]
    badness = [results[at].badness for at in differ]
    known = np.array([-np.inf if each is None else each for each in badness], np.float64)
    return [differ[place] for place in worst_first(known, len(differ))]


def _read_only_view(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _row_result(result: object) -> RowResult:
    if not isinstance(result, RowResult):
        raise RuleFailed(f"measure returned {type(result).__name__}, no RowResult")
    return result


# ---------------------------------------------------------------- the table

ROWS: Final[Mapping[type, RuleRow]] = MappingProxyType(
    {
        config.CloseRule: RuleRow(_ALL, _by_close),
        config.ExactRule: RuleRow(_ALL, _by_exact),
        config.RelativeRule: RuleRow(_NUMBERS, _by_relative),
        config.ArgmaxRule: RuleRow(_NUMBERS, _by_argmax, _two_labels_problem),
        config.TopKRule: RuleRow(_NUMBERS, _by_top_k, _k_labels_problem),
        config.CosineRule: RuleRow(_NUMBERS, _by_cosine, lambda _rule, _length: ""),
        # Equal values that are no distribution are a mismatch.
        config.DistributionRule: RuleRow(
            _FLOATS, _by_distribution, _two_labels_problem, judges_equal=True
        ),
        config.BytesRule: RuleRow(_STRINGS, _by_exact),
        config.JsonRule: RuleRow(_STRINGS, _by_json),
    }
)

"""Which rule goes with which outputs, and its application. Pure, as far as own rules are.

Applying a rule never fails: what it raises is what it returns.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from coalmine.tensors import BYTES, DATATYPES, Array
from coalmine_router.config import compare_section as config
from coalmine_router.config.compare_section import RuleConfig
from coalmine_router.observer.comparison.closeness import close, exact, relative, tolerance
from coalmine_router.observer.comparison.measured import (
    Measured,
    as_badness,
    text,
    worst_first,
)
from coalmine_router.observer.comparison.ranking import argmax, top_k
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.trees import Allowed, allowed, json_trees
from coalmine_router.observer.comparison.vectors import cosine, distribution
from coalmine_router.own_rule import OwnRule, RowResult

# A call of Python's for each row: beyond, one answer would take minutes.
OWN_ROWS_MAX: Final = 65_536

_ALL: Final = frozenset(DATATYPES)
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_NUMBERS: Final = _ALL - {BYTES, "BOOL"}
_STRINGS: Final = frozenset({BYTES})

_DATATYPES: Final[Mapping[type, frozenset[str]]] = MappingProxyType(
    {
        config.CloseRule: _ALL,
        config.ExactRule: _ALL,
        config.RelativeRule: _NUMBERS,
        config.ArgmaxRule: _NUMBERS,
        config.TopKRule: _NUMBERS,
        config.CosineRule: _NUMBERS,
        config.DistributionRule: _FLOATS,
        config.BytesRule: _STRINGS,
        config.JsonRule: _STRINGS,
    }
)
# These judge vectors along the last axis: of a row that is one number, they have nothing to judge.
_OF_VECTORS: Final = (
    config.ArgmaxRule,
    config.TopKRule,
    config.CosineRule,
    config.DistributionRule,
)


class RuleFailed(Exception):
    """A rule raised, or returned what isn't a result."""


class RuleRefused(NamedTuple):
    """Why a rule said nothing."""

    is_unfit: bool
    told: str


def is_of_vectors(rule: RuleConfig) -> bool:
    """Return whether a rule needs a dimension beside that of the rows."""
    return isinstance(rule, _OF_VECTORS)


def measured(
    rule: RuleConfig, datatype: str, reference: Array, candidate: Array, *, is_same: bool
) -> Measured | RuleRefused:
    """Return what a rule finds of two outputs, or why it finds nothing.

    Shapes: both (rows, …), equal, with elements. `is_same`: every bit is known to be.
    """
    problem = _unfit(rule, datatype, reference.shape)
    if problem:
        return RuleRefused(is_unfit=True, told=problem)
    # What is no distribution is none on both sides; and what own rules say is theirs to know.
    if is_same and not isinstance(rule, config.DistributionRule | OwnRule):
        return Measured(reference.size)
    try:
        return _apply(rule, datatype, reference, candidate)
    except Exception as error:  # noqa: BLE001 - own rules raise whatever; none is worth the observer's life
        return RuleRefused(is_unfit=False, told=text(f"{type(error).__name__}: {error}"))


def _unfit(rule: RuleConfig, datatype: str, shape: tuple[int, ...]) -> str:
    takes = rule.datatypes if isinstance(rule, OwnRule) else _DATATYPES[type(rule)]
    if datatype not in takes:
        return f"{rule.rule} takes no {datatype}"
    if isinstance(rule, OwnRule) and shape[0] > OWN_ROWS_MAX:
        return f"{shape[0]} rows, at most {OWN_ROWS_MAX} are given to a rule of one's own"
    return _unfit_vectors(rule, shape) if isinstance(rule, _OF_VECTORS) else ""


def _unfit_vectors(rule: RuleConfig, shape: tuple[int, ...]) -> str:
    if len(shape) < 2:
        return f"{rule.rule} takes vectors: each row is one number"
    labels = shape[-1]
    if isinstance(rule, config.TopKRule) and not rule.order and rule.k >= labels:
        return f"k is {rule.k}, of {labels} labels: every answer has them all on top"
    if labels < 2 and not isinstance(rule, config.CosineRule):
        return f"{rule.rule} takes two labels or more: with one, every answer is the same"
    return ""


# ---------------------------------------------------------------- each rule, with its settings


def _close(rule: config.CloseRule, datatype: str, r: Array, c: Array) -> Measured:
    rtol, atol = tolerance(datatype, rule.rtol, rule.atol)
    return close(r, c, rtol=rtol, atol=atol)


def _exact(_rule: config.ExactRule | config.BytesRule, _: str, r: Array, c: Array) -> Measured:
    return exact(r, c)


def _relative(rule: config.RelativeRule, _: str, r: Array, c: Array) -> Measured:
    return relative(r, c, most=rule.max, floor=rule.floor)


def _argmax(rule: config.ArgmaxRule, _: str, r: Array, c: Array) -> Measured:
    return argmax(r, c, margin=rule.margin)


def _top_k(rule: config.TopKRule, _: str, r: Array, c: Array) -> Measured:
    min_tau = rule.min_tau if rule.order else None
    k = min(rule.k, r.shape[-1])
    return top_k(r, c, k=k, min_overlap=rule.min_overlap, min_tau=min_tau)


def _cosine(rule: config.CosineRule, _: str, r: Array, c: Array) -> Measured:
    return cosine(r, c, least=rule.min)


def _distribution(rule: config.DistributionRule, _: str, r: Array, c: Array) -> Measured:
    return distribution(r, c, source=rule.source, most=rule.max)


def _json(rule: config.JsonRule, _: str, r: Array, c: Array) -> Measured:
    return json_trees(r, c, _allowed(rule))


@lru_cache(maxsize=256)
def _allowed(rule: config.JsonRule) -> Allowed:
    return allowed(rule.rtol, rule.atol, rule.ignore)


_APPLY: Final[Mapping[type, Callable[[Any, str, Array, Array], Measured]]] = MappingProxyType(
    {
        config.CloseRule: _close,
        config.ExactRule: _exact,
        config.RelativeRule: _relative,
        config.ArgmaxRule: _argmax,
        config.TopKRule: _top_k,
        config.CosineRule: _cosine,
        config.DistributionRule: _distribution,
        config.BytesRule: _exact,
        config.JsonRule: _json,
    }
)


def _apply(rule: RuleConfig, datatype: str, r: Array, c: Array) -> Measured:
    if isinstance(rule, OwnRule):
        return _own(rule, r, c)
    return _APPLY[type(rule)](rule, datatype, r, c)


# ---------------------------------------------------------------- rules of one's own


def _own(rule: OwnRule, reference: Array, candidate: Array) -> Measured:
    ours, theirs = _read_only(reference), _read_only(candidate)
    results = [_checked(rule.measure(ours[at, ...], theirs[at, ...])) for at in range(len(ours))]
    differ = np.array([each.is_mismatch for each in results], dtype=bool)
    if not differ.any():
        return Measured(len(results))
    worst = _worst_rows(results)
    badness = results[worst[0]].badness
    return Measured(
        elements=len(results),
        differing=int(np.count_nonzero(differ)),
        kind="value",
        worst=tuple(
            Element((at,), text(results[at].expected), text(results[at].actual)) for at in worst
        ),
        rows_differ=differ,
        score=_score(results[worst[0]].score),
        badness=None if badness is None else as_badness(float(badness)),
    )


def _worst_rows(results: Sequence[RowResult]) -> list[int]:
    """Return the rows that differ, the worst first, eight at most; of equals, the first."""
    differ = [at for at, each in enumerate(results) if each.is_mismatch]
    badness = [results[at].badness for at in differ]
    known = np.array([-np.inf if each is None else each for each in badness], np.float64)
    return [differ[place] for place in worst_first(known, len(differ))]


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _checked(result: object) -> RowResult:
    if not isinstance(result, RowResult):
        raise RuleFailed(f"measure returned {type(result).__name__}, no RowResult")
    return result


def _score(score: float | None) -> float | None:
    return float(score) if score is not None and np.isfinite(score) else None

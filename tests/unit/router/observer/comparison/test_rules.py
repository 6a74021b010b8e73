"""Which rule goes with which outputs."""

from typing import Any, get_args

import numpy as np
import pytest

from coalmine.tensors import DATATYPES, Array, numpy_dtype
from coalmine_router.config.compare_section import (
    BuiltInRule,
    CompareConfig,
    IgnoreRule,
    RuleConfig,
)
from coalmine_router.observer.comparison.rule_result import RuleResult
from coalmine_router.observer.comparison.rules import ROWS, RuleProblem, result_of

ALL = set(DATATYPES)
FLOATS = {"FP16", "BF16", "FP32", "FP64"}
NUMBERS = ALL - {"BYTES", "BOOL"}
TAKES = {
    "close": ALL,
    "exact": ALL,
    "relative": NUMBERS,
    "argmax": NUMBERS,
    "top_k": NUMBERS,
    "cosine": NUMBERS,
    "distribution": FLOATS,
    "bytes": {"BYTES"},
    "json": {"BYTES"},
}
NEEDED: dict[str, dict[str, Any]] = {"top_k": {"k": 2}, "distribution": {"from": "logits"}}


def rule(name: str, **fields: Any) -> RuleConfig:
    written = {"rule": name, **NEEDED.get(name, {}), **fields}
    return CompareConfig.model_validate({"default": written}).default


def values(datatype: str, shape: tuple[int, ...] = (2, 3)) -> Array:
    if datatype == "BYTES":
        return np.full(shape, b"1", dtype=object)
    return np.ones(shape).astype(numpy_dtype(datatype))


def apply(chosen: RuleConfig, datatype: str, *shape: int, is_same: bool = False) -> Any:
    array = values(datatype, shape)
    return result_of(chosen, datatype, array, array.copy(), is_same=is_same)


def test_every_rule_but_ignore_has_its_row_in_the_table() -> None:
    assert ROWS.keys() == set(get_args(BuiltInRule)) - {IgnoreRule}


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("name", TAKES)
def test_a_rule_judges_the_datatypes_it_takes_and_refuses_the_others(
    name: str, datatype: str, is_same: bool
) -> None:
    found = apply(rule(name), datatype, 2, 3, is_same=is_same)
    if datatype in TAKES[name]:
        assert isinstance(found, RuleResult)
        assert (found.kind, found.rows_differ) == (None, None)
    else:
        assert found == RuleProblem("rule_unfit", f"{name} takes no {datatype}")


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize(
    ("chosen", "shape", "told"),
    [
        (rule("argmax"), (4,), "each row is one number"),
        (rule("cosine"), (4,), "each row is one number"),
        (rule("argmax"), (4, 1), "two labels or more"),
        (rule("distribution"), (4, 1), "two labels or more"),
        (rule("top_k", k=3), (4, 3), "k is 3, of 3 labels"),
        (rule("top_k", k=5, order=True), (4, 1), "two labels or more"),
    ],
    ids=str,
)
def test_a_rule_that_would_accept_everything_is_refused(
    chosen: RuleConfig, shape: tuple[int, ...], told: str, is_same: bool
) -> None:
    found = apply(chosen, "FP32", *shape, is_same=is_same)
    assert isinstance(found, RuleProblem)
    assert found.kind == "rule_unfit"
    assert told in found.text


def test_all_labels_may_be_asked_for_in_order() -> None:
    chosen = rule("top_k", k=9, order=True)
    reference = np.array([[3.0, 2.0, 1.0]])
    same = result_of(chosen, "FP64", reference, reference * 2, is_same=False)
    other = result_of(chosen, "FP64", reference, -reference, is_same=False)
    assert isinstance(same, RuleResult)
    assert isinstance(other, RuleResult)
    assert (same.differing, other.differing) == (0, 1)


def test_equal_values_that_are_no_distribution_do_not_match() -> None:
    chosen = rule("distribution", **{"from": "probabilities"})
    found = apply(chosen, "FP32", 2, 3, is_same=True)
    assert isinstance(found, RuleResult)
    assert found.differing == 2

"""How bad a kept example is, from the rule that judged it to the order of the list."""

from typing import Any

import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.tensors import Tensor
from coalmine_router.config import compare_section as config
from coalmine_router.config.compare_section import RuleConfig
from coalmine_router.observer.comparison.output_comparison import OutputSpec, output_comparison
from coalmine_router.observer.examples.records import difference_message
from coalmine_router.observer.examples.severity import largest_difference, severity_of
from coalmine_router.own_rule import OwnRule, RowResult

NAN = float("nan")
INF = float("inf")


class Costs(OwnRule):
    """As bad as the sum of what differs."""

    rule: str = "costs"

    def measure(self, reference: Any, candidate: Any) -> RowResult:
        cost = float(np.abs(reference - candidate).sum())
        return RowResult(cost > 0.0, badness=cost)


def rows(*values: list[float]) -> Tensor:
    return Tensor("y", "FP32", np.array(values, np.float32))


def found(rule: RuleConfig, reference: Tensor, candidate: Tensor) -> pb.Mismatch:
    """Return the example of a candidate that differs from the reference, as far as it is ranked."""
    result = output_comparison(
        OutputSpec("y", rule, len(reference.array)), reference, candidate
    ).result
    assert result.difference is not None, "it differs"
    difference = difference_message(result.difference)
    return pb.Mismatch(kind=difference.kind, differences=[difference])


# Candidates beside [3, 2, 1, 0], ever worse.
WORSE: list[tuple[RuleConfig, list[list[float]]]] = [
    (
        config.CosineRule(rule="cosine", min=0.999),
        [[3, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 5], [-3, -2, -1, 0], [INF, 0, 0, 0], [NAN, 2, 1, 0]],
    ),
    (
        config.ArgmaxRule(rule="argmax"),
        [[0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9], [NAN, 2, 1, 0]],
    ),
    (
        config.TopKRule(rule="top_k", k=2, order=True, min_tau=0.5),
        [[2, 3, 1, 0], [3, 0, 2, 1], [0, 1, 2, 3], [NAN, 2, 1, 0]],
    ),
    (
        config.DistributionRule.model_validate(
            {"rule": "distribution", "from": "logits", "max": 1e-6}
        ),
        [[3, 2, 1, 1], [2, 2, 1, 0], [0, 0, 0, 9], [INF, 2, 1, 0], [NAN, 2, 1, 0]],
    ),
    (
        config.RelativeRule(rule="relative", max=0.01, floor=0.5),
        [[3.1, 2, 1, 0], [3, 3, 1, 0], [3, 2, 1, 2], [3, 2, 1, INF], [NAN, 2, 1, 0]],
    ),
    (Costs(), [[3, 2, 1, 1], [3, 2, 1, 7], [NAN, 2, 1, 0]]),
]


@pytest.mark.parametrize(("rule", "candidates"), WORSE, ids=[rule.rule for rule, _ in WORSE])
def test_an_example_is_as_bad_as_the_rule_of_its_output_says(
    rule: RuleConfig, candidates: list[list[float]]
) -> None:
    reference = rows([3, 2, 1, 0])
    if isinstance(rule, Costs):
        candidates = candidates[:-1]  # its own `NaN > 0` says that nothing differs
    ranked = [severity_of(found(rule, reference, rows(each))) for each in candidates]

    assert {measure for measure, _ in ranked} == {rule.rule}
    badness = [each for _, each in ranked]
    assert badness == sorted(badness)
    assert len(set(badness)) == len(badness)


def test_of_several_rows_the_worst_one_says_how_bad_it_is() -> None:
    rule = config.CosineRule(rule="cosine", min=0.999)
    near, far = [3.0, 2.0, 0.0], [-3.0, -2.0, -1.0]
    reference = rows(*[[3.0, 2.0, 1.0]] * 3)

    one_far = severity_of(found(rule, reference, rows([3, 2, 1], [3, 2, 1], far)))
    all_near = severity_of(found(rule, reference, rows(near, near, near)))

    assert one_far > all_near


@pytest.mark.parametrize("rule", [config.CloseRule(rule="close"), config.ExactRule(rule="exact")])
def test_rules_without_a_measure_of_their_own_leave_it_to_rows_and_distance(
    rule: RuleConfig,
) -> None:
    example = found(rule, rows([1.0]), rows([3.5]))

    assert severity_of(example) == ("", 0.0)
    assert largest_difference(example) == 2.5


def test_an_output_of_another_shape_is_not_ranked_by_the_rule_for_its_values() -> None:
    example = found(config.CosineRule(rule="cosine", min=0.9), rows([1, 2]), rows([1, 2, 3]))

    assert (example.kind, severity_of(example)) == ("shape", ("", 0.0))


def test_of_several_outputs_the_worst_under_the_first_ones_rule_counts() -> None:
    differences = [
        pb.Difference(output="a", rule="cosine", badness=0.25),
        pb.Difference(output="b", rule="argmax", badness=40.0),
        pb.Difference(output="c", rule="cosine", badness=1.5),
        pb.Difference(output="d", rule="close", max_abs_diff=9.0),
    ]

    assert severity_of(pb.Mismatch(differences=differences)) == ("cosine", 1.5)
    assert severity_of(pb.Mismatch(differences=differences[3:])) == ("", 0.0)
    assert severity_of(pb.Mismatch()) == ("", 0.0)


@pytest.mark.parametrize(("rule", "worse"), [("cosine", 0.1), ("top_k", 0.2), ("argmax", 0.9)])
def test_a_record_that_has_a_score_alone_is_ranked_by_it(rule: str, worse: float) -> None:
    def badness(score: float) -> float:
        return severity_of(pb.Mismatch(differences=[pb.Difference(rule=rule, score=score)]))[1]

    assert badness(worse) > badness(0.5)
    assert severity_of(pb.Mismatch(differences=[pb.Difference(rule="own", score=1.0)])) == ("", 0.0)

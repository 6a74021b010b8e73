"""Which rows two answers have, and which of them differ."""

from typing import Any

import numpy as np
import pytest

from coalmine.tensors import Array
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.job import ComparisonJob, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison
from tests.doubles.oip_backend import response_body


def rules(batched: Any = "auto", default: Any = None, **outputs: Any) -> CompareConfig:
    return CompareConfig.model_validate(
        {"batched": batched, "default": default or {"rule": "close"}, "outputs": outputs}
    )


def compared(
    reference: dict[str, Any], candidate: dict[str, Any], chosen: CompareConfig | None = None
) -> Comparison:
    answers = (
        ComparedAnswer(response_body(**reference)),
        ComparedAnswer(response_body(**candidate)),
    )
    return results_of(ComparisonJob(answers, ((0, 1),), chosen or rules())).comparisons[0]


def changed(values: Array, *rows: int) -> Array:
    other = values.copy()
    other[list(rows)] += 1
    return other


FOUR, FOUR_MORE = np.zeros((4, 3)), np.zeros((4, 2, 2))


def counts(found: Comparison) -> tuple[int, int]:
    return found.rows, found.rows_mismatch


def test_one_bad_row_of_a_batch_counts_as_one() -> None:
    found = compared({"y": FOUR}, {"y": changed(FOUR, 2)})
    assert counts(found) == (4, 1)
    assert found.share == 0.25
    assert (found.outputs[0].rows, found.outputs[0].rows_mismatch) == (4, 1)
    assert found.differences[0].worst[0].index == (2, 0)


def test_a_row_differs_where_any_of_its_outputs_does() -> None:
    found = compared(
        {"y": FOUR, "z": FOUR_MORE}, {"y": changed(FOUR, 0, 1), "z": changed(FOUR_MORE, 1, 3)}
    )
    assert counts(found) == (4, 3)
    assert [each.rows_mismatch for each in found.outputs] == [2, 2]


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        ({"y": FOUR}, "missing"),
        ({"y": FOUR, "z": FOUR_MORE, "more": FOUR}, "extra"),
        ({"y": FOUR, "z": FOUR_MORE.astype(np.float32)}, "datatype"),
        ({"y": FOUR, "z": np.zeros((4, 5))}, "shape"),
    ],
)
def test_an_output_that_differs_as_a_whole_differs_in_every_row(
    candidate: dict[str, Array], kind: str
) -> None:
    found = compared({"y": FOUR, "z": FOUR_MORE}, candidate)
    assert found.kind == kind
    assert counts(found) == (4, 4)
    assert found.share == 1.0


def test_answers_of_other_batch_sizes_are_one_row() -> None:
    found = compared({"y": FOUR}, {"y": np.zeros((3, 3))})
    assert (found.kind, *counts(found)) == ("shape", 1, 1)


@pytest.mark.parametrize(
    "beside",
    [np.zeros((3, 3)), np.array(1.0), np.zeros((0, 3))],
    ids=["another size", "a scalar", "no rows"],
)
def test_outputs_that_share_no_first_size_are_one_row(beside: Array) -> None:
    found = compared({"y": FOUR, "z": beside}, {"y": changed(FOUR, 2), "z": beside})
    assert counts(found) == (1, 1)
    assert found.outputs[0].rows == 1
    assert found.differences[0].worst[0].index == (2, 0)


def test_an_ignored_output_says_nothing_of_the_rows() -> None:
    chosen = rules(when={"rule": "ignore"})
    reference, candidate = {"y": FOUR, "when": np.zeros(7)}, {"y": changed(FOUR, 2)}
    assert counts(compared(reference, candidate, chosen)) == (4, 1)


def test_an_unbatched_vector_looks_like_a_batch_unless_the_file_says_otherwise() -> None:
    scores = np.arange(10.0)
    other = changed(scores, 3)
    assert counts(compared({"y": scores}, {"y": other})) == (10, 1)
    assert counts(compared({"y": scores}, {"y": other}, rules(False))) == (1, 1)


@pytest.mark.parametrize(
    "rule", [{"rule": "argmax"}, {"rule": "top_k", "k": 3}, {"rule": "cosine"}], ids=str
)
def test_a_rule_of_vectors_takes_a_lone_vector_for_one_row(rule: dict[str, Any]) -> None:
    scores = np.arange(10.0)
    found = compared({"y": scores}, {"y": -scores}, rules(default=rule))
    assert (found.outcome, *counts(found)) == ("mismatch", 1, 1)


def test_batched_true_takes_the_references_first_output_for_the_batch() -> None:
    fixed = np.zeros((2, 5))
    reference, candidate = {"y": FOUR, "z": fixed}, {"y": changed(FOUR, 1), "z": fixed}
    found = compared(reference, candidate, rules(True))
    assert counts(found) == (4, 1)
    assert [each.rows for each in found.outputs] == [4, 1]
    # What belongs to no row belongs to all of them.
    whole = compared(reference, {"y": FOUR, "z": fixed + 1}, rules(True))
    assert counts(whole) == (4, 4)


def test_batched_true_of_answers_that_have_no_dimension_is_one_row() -> None:
    assert counts(compared({"y": np.array(1.0)}, {"y": np.array(1.0)}, rules(True))) == (1, 0)


def test_a_batch_of_one_is_one_row() -> None:
    found = compared({"y": FOUR[:1]}, {"y": changed(FOUR, 0)[:1]})
    assert counts(found) == (1, 1)
    assert found.differences[0].worst[0].index == (0, 0)

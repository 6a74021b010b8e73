"""Labels on top, and the k best of them."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.stats import kendalltau

from coalmine.tensors import Array
from coalmine_router.observer.comparison.ranking import argmax, top_k
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.rule_result import BLOCK

INF, NAN = math.inf, math.nan


def rows(*values: list[float]) -> Array:
    return np.array(values, dtype=np.float32)


# ---------------------------------------------------------------- argmax


def test_another_label_on_top_is_a_mismatch_of_its_row_alone() -> None:
    reference = rows([0.1, 0.7, 0.2], [0.9, 0.0, 0.1], [0.2, 0.3, 0.5])
    candidate = rows([0.1, 0.5, 0.4], [0.3, 0.4, 0.3], [0.1, 0.4, 0.5])
    found = argmax(reference, candidate)
    assert (found.elements, found.differing, found.kind) == (3, 1, "label")
    assert found.rows_differ is not None
    assert list(found.rows_differ) == [False, True, False]
    assert found.worst == (Element((1,), "0 (0.9)", "1 (0.4)"),)
    assert found.score == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("reference", "margin", "differs"),
    [
        ([5.0, 4.0, 0.0], 0.0, True),
        ([5.0, 4.0, 0.0], 0.99, True),
        ([5.0, 4.0, 0.0], 1.0, False),
        ([5.0, 5.0, 0.0], 0.0, False),  # a tie in the reference: either will do
        ([5.0, 4.5, 4.6], 0.5, False),
        ([INF, INF, 0.0], 0.0, False),
        ([INF, 5.0, 0.0], 1e30, True),
        ([-INF, -INF, -INF], 0.0, False),
    ],
)
def test_a_label_within_the_margin_of_the_references_top_will_do(
    reference: list[float], margin: float, differs: bool
) -> None:
    found = argmax(rows(reference), rows([0.0, 1.0, 0.0]), margin=margin)
    assert bool(found.differing) is differs


def test_a_tie_in_the_candidate_is_not_excused() -> None:
    assert argmax(rows([0.0, 1.0]), rows([0.0, 0.0])).differing == 1


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        ([NAN, 1, 2], [NAN, 1, 2], None),
        ([NAN, 1, 2], [NAN, 3, 2], "label"),
        ([NAN, 1, 2], [0, 1, 2], "nan"),
        ([0, 1, 2], [0, NAN, 2], "nan"),
        ([NAN, 1, 2], [1, NAN, 2], "nan"),
        ([NAN, NAN, NAN], [NAN, NAN, NAN], None),
        ([0, INF, 2], [0, INF, 2], None),
        ([0, 1, INF], [0, INF, 2], "label"),
    ],
)
def test_nan_on_one_side_alone_differs_and_on_both_is_never_on_top(
    reference: list[float], candidate: list[float], kind: str | None
) -> None:
    ranked = argmax(rows([1, 2, 3], reference), rows([1, 2, 3], candidate))
    best = top_k(rows([1, 2, 3], reference), rows([1, 2, 3], candidate), k=1)
    assert ranked.kind == best.kind == kind


def test_a_nan_is_told_by_its_place() -> None:
    found = argmax(rows([0.0, 1.0, 2.0]), rows([0.0, NAN, 9.0]))
    assert found.worst == (Element((0, 1), "1.0", "nan"),)
    assert found.score is None


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8, np.uint64])
def test_every_number_type_has_labels(dtype: Any) -> None:
    reference = np.array([[1, 3, 2], [3, 1, 2]]).astype(dtype)
    candidate = np.array([[1, 3, 2], [2, 1, 3]]).astype(dtype)
    assert argmax(reference, candidate).differing == 1
    assert top_k(reference, candidate, k=2).differing == 0
    assert top_k(reference, candidate, k=1).differing == 1


def test_labels_of_each_position_are_judged_and_rows_count_once() -> None:
    reference = np.zeros((2, 3, 4), np.float32)
    reference[..., 1] = 1
    candidate = reference.copy()
    candidate[1, 0, 2] = candidate[1, 2, 3] = 2
    found = argmax(reference, candidate)
    assert (found.elements, found.differing) == (6, 2)
    assert found.rows_differ is not None
    assert list(found.rows_differ) == [False, True]
    assert [each.index for each in found.worst] == [(1, 0), (1, 2)]


def test_rows_are_found_in_every_block() -> None:
    count = 2 * BLOCK // 4 + 5
    reference = np.tile(rows([1, 2, 3, 4]), (count, 1))
    candidate = reference.copy()
    candidate[[0, count // 2, count - 1], 0] = 9
    for found in (argmax(reference, candidate), top_k(reference, candidate, k=2)):
        assert found.rows_differ is not None
        assert list(np.flatnonzero(found.rows_differ)) == [0, count // 2, count - 1]


# ---------------------------------------------------------------- top_k


def test_the_k_best_may_come_in_any_order_unless_it_is_asked_for() -> None:
    reference, candidate = rows([9, 8, 7, 1, 0]), rows([7, 8, 9, 1, 0])
    assert top_k(reference, candidate, k=3).kind is None
    found = top_k(reference, candidate, k=3, min_tau=1.0)
    assert (found.kind, found.score) == ("label", -1.0)
    assert found.worst == (Element((0,), "0 1 2", "2 1 0"),)


@pytest.mark.parametrize(("min_overlap", "differs"), [(1.0, True), (0.8, False), (0.81, True)])
def test_a_share_of_the_k_best_is_enough(min_overlap: float, differs: bool) -> None:
    reference, candidate = rows([9, 8, 7, 6, 5, 0, 0]), rows([9, 8, 7, 6, 0, 5, 0])
    found = top_k(reference, candidate, k=5, min_overlap=min_overlap)
    assert bool(found.differing) is differs
    assert found.score == (0.8 if differs else None)


def test_labels_that_tie_for_the_references_last_place_are_all_among_them() -> None:
    assert top_k(rows([9, 5, 5, 5, 0]), rows([9, 0, 0, 8, 0]), k=2).differing == 0
    # The candidate's own tie goes to the first label, which the reference puts last.
    assert top_k(rows([0, 5, 9, 4]), rows([5, 5, 9, 5]), k=2).differing == 1


def test_other_labels_are_worse_than_another_order() -> None:
    reference = rows([9, 8, 7, 0, 0], [9, 8, 7, 0, 0])
    candidate = rows([7, 8, 9, 0, 0], [9, 8, 0, 7, 0])
    found = top_k(reference, candidate, k=3, min_overlap=0.9, min_tau=0.9)
    assert [each.index for each in found.worst] == [(1,), (0,)]
    assert found.score == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("reference", "candidate", "tau"),
    [
        ([4, 3, 2, 0], [3, 4, 2, 0], 1 / 3),  # one pair of three the other way round
        ([4, 4, 2, 0], [3, 4, 2, 0], 1.0),  # no order in the reference to keep
        ([4, 3, 2, 0], [4, 4, 2, 0], 2 / 3),  # the candidate alone ties: neither
    ],
)
def test_pairs_that_tie_in_the_reference_are_in_order(
    reference: list[float], candidate: list[float], tau: float
) -> None:
    found = top_k(rows(reference), rows(candidate), k=3, min_tau=tau - 0.01)
    assert found.differing == 0
    if tau < 1:
        assert top_k(rows(reference), rows(candidate), k=3, min_tau=tau + 0.01).score == (
            pytest.approx(tau)
        )


def test_one_label_in_common_is_in_order() -> None:
    found = top_k(rows([9, 8, 0, 0]), rows([9, 0, 8, 0]), k=2, min_overlap=0.5, min_tau=1.0)
    assert found.differing == 0


# ---------------------------------------------------------------- against other ways to count

small = st.integers(-4, 4).map(float) | st.sampled_from([INF, -INF])


@given(st_np.arrays(np.float64, (2, 6), elements=small), st.sampled_from([0.0, 1.0]))
def test_argmax_agrees_with_asking_label_by_label(values: Array, margin: float) -> None:
    r, c = values
    chosen = list(c).index(max(c))
    accepted = [at for at, value in enumerate(r) if value == max(r) or max(r) - value <= margin]
    assert (argmax(r[None], c[None], margin=margin).differing == 0) is (chosen in accepted)


@given(st_np.arrays(np.float64, (2, 6), elements=small), st.integers(1, 5))
def test_top_k_agrees_with_counting_in_sorted_lists(values: Array, k: int) -> None:
    r, c = values
    last = sorted(r, reverse=True)[k - 1]
    among = {at for at, value in enumerate(r) if value >= last}
    best = sorted(range(6), key=lambda at: (-c[at], at))[:k]
    overlap = len(among & set(best)) / k
    found = top_k(r[None], c[None], k=k)
    assert (1.0 if found.score is None else found.score) == overlap


@given(st.permutations(range(7)), st.permutations(range(7)))
def test_tau_is_that_of_scipy_where_nothing_ties(r: list[int], c: list[int]) -> None:
    found = top_k(rows([*r, -9.0]), rows([*c, -9.0]), k=7, min_tau=1.0)
    expected = float(kendalltau(r, c).statistic)
    assert (1.0 if found.score is None else found.score) == pytest.approx(expected)

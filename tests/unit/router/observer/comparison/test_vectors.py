"""Vectors as a whole: their direction, and the distributions that they are."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from coalmine.tensors import Array
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.rule_result import BLOCK, RuleResult
from coalmine_router.observer.comparison.vectors import Source, cosine, distribution

INF, NAN = math.inf, math.nan


def rows(*values: list[float]) -> Array:
    return np.array(values, dtype=np.float64)


def similarity(reference: list[float], candidate: list[float]) -> float:
    """Return the score, by asking for more than there can be."""
    found = cosine(rows(reference), rows(candidate), least=1.1)
    assert found.score is not None
    return found.score


# ---------------------------------------------------------------- cosine


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([1, 0], [3, 0], 1.0),
        ([1, 0], [0, 1], 0.0),
        ([1, 0], [-1, 0], -1.0),
        ([1, 0], [1, 1], math.sqrt(0.5)),
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [1, 0], 0.0),
        ([1, 0], [0, 0], 0.0),
        ([1e200, 1e200], [2e200, 2e200], 1.0),  # the squares overflow
        ([1e-200, 0], [1e-200, 1e-200], math.sqrt(0.5)),  # and here they vanish
        ([1e-320, 0], [1e300, 0], 1.0),
        ([INF, 1], [INF, 1], 1.0),
        ([NAN, 1, 0], [NAN, 1, 1], math.sqrt(0.5)),
        ([NAN, NAN], [NAN, NAN], 1.0),
    ],
)
def test_similarity_is_defined_for_vectors_at_the_edges(
    reference: list[float], candidate: list[float], expected: float
) -> None:
    assert similarity(reference, candidate) == pytest.approx(expected)


@pytest.mark.parametrize("least", [-1.0, 0.5, 1.0])
def test_an_infinity_has_no_direction_but_that_of_its_equal(least: float) -> None:
    found = cosine(rows([INF, 1], [1, 1]), rows([INF, 2], [1, 1]), least=least)
    assert (found.differing, found.kind, found.score) == (1, "value", None)
    assert found.worst[0].actual == ("no direction: infinity in the reference and the candidate")


def test_a_vector_below_the_least_similarity_is_a_mismatch_of_its_row() -> None:
    found = cosine(rows([1, 0], [1, 0]), rows([1, 0], [1, 1]), least=0.999)
    assert found.rows_differ is not None
    assert list(found.rows_differ) == [False, True]
    assert found.worst == (Element((1,), "0.999 or more", "0.707107"),)
    assert found.score == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(
    ("reference", "candidate"), [([1, 2], [NAN, 2]), ([NAN, 2], [1, 2]), ([NAN, 2], [2, NAN])]
)
def test_nan_on_one_side_alone_is_told_by_its_place(
    reference: list[float], candidate: list[float]
) -> None:
    found = cosine(rows([1, 0], reference), rows([1, 0], candidate), least=-1)
    assert (found.kind, found.differing, found.score) == ("nan", 1, None)
    assert found.worst[0].index == (1, 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.int8])
def test_a_vector_is_like_itself_in_every_type(dtype: Any) -> None:
    vectors = np.random.default_rng(5).integers(-100, 100, (50, 33)).astype(dtype)
    assert cosine(vectors, vectors.copy(), least=1.0) == RuleResult(50)
    assert cosine(vectors, -vectors, least=0.0).differing == 50


def test_rows_are_found_in_every_block() -> None:
    reference = np.ones((2 * BLOCK // 8 + 3, 8), np.float32)
    candidate = reference.copy()
    candidate[[0, BLOCK // 8, -1], 0] = -9
    found = cosine(reference, candidate, least=0.9)
    assert found.rows_differ is not None
    assert list(np.flatnonzero(found.rows_differ)) == [0, BLOCK // 8, len(reference) - 1]


@given(st_np.arrays(np.float64, (2, 5), elements=st.floats(-1e300, 1e300)))
def test_similarity_is_symmetric_and_within_its_bounds(values: Array) -> None:
    r, c = values.tolist()
    assert similarity(r, c) == pytest.approx(similarity(c, r))
    assert -1.0 <= similarity(r, c) <= 1.0


# ---------------------------------------------------------------- distribution


def divergence(reference: Array, candidate: Array, source: Source) -> float:
    found = distribution(reference[None], candidate[None], source=source, most=-1.0)
    assert found.score is not None
    return found.score


@given(st_np.arrays(np.float64, (2, 5), elements=st.floats(-50, 50)))
def test_the_divergence_of_logits_is_that_of_scipy_in_bits(values: Array) -> None:
    r, c = values
    with np.errstate(invalid="ignore"):  # rounding alone makes scipy's sum negative
        distance = float(np.nan_to_num(jensenshannon(softmax(r), softmax(c), base=2)))
    assert divergence(r, c, "logits") == pytest.approx(distance**2, abs=1e-9)
    assert divergence(softmax(r), softmax(c), "probabilities") == pytest.approx(
        divergence(r, c, "logits"), abs=1e-9
    )


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([1.0, 0.0], [0.0, 1.0], 1.0),  # nothing in common: one bit
        ([1.0, 0.0], [0.5, 0.5], 0.311278),
        ([0.501, 0.501], [0.499, 0.499], 0.0),  # rounding of the sum
        ([1.0, -1e-7], [1.0, 0.0], 0.0),
    ],
)
def test_the_divergence_of_probabilities(
    reference: list[float], candidate: list[float], expected: float
) -> None:
    found = divergence(np.array(reference), np.array(candidate), "probabilities")
    assert found == pytest.approx(expected, abs=1e-6)


def test_logits_may_be_large_shifted_and_masked() -> None:
    reference = np.array([1000.0, 999.0, -INF])
    assert divergence(reference, reference - 5000, "logits") == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("source", "values", "told"),
    [
        ("probabilities", [3.0, 1.0], "no probabilities: their sum is 4"),
        ("probabilities", [1.5, -0.5], "no probabilities: -0.5"),
        ("probabilities", [0.0, 0.0], "no probabilities: their sum is 0"),
        ("probabilities", [INF, 0.0], "no probabilities: their sum is inf"),
        ("logits", [INF, 0.0], "no logits: an infinity is the largest"),
        ("logits", [-INF, -INF], "no logits: an infinity is the largest"),
    ],
)
def test_what_is_no_distribution_is_a_mismatch_that_says_so(
    source: Source, values: list[float], told: str
) -> None:
    good = rows([0.5, 0.5])
    found = distribution(good, rows(values), source=source, most=1.0)
    assert (found.kind, found.score, found.worst[0].actual) == ("value", None, told)
    assert distribution(rows(values), good, source=source, most=1.0).worst[0].expected == told
    assert distribution(rows(values), rows(values), source=source, most=1.0).kind == "value"


@pytest.mark.parametrize("source", ["logits", "probabilities"])
def test_nan_on_both_sides_is_left_out_and_on_one_side_differs(source: Source) -> None:
    half = rows([0.5, NAN, 0.5])
    assert distribution(half, half.copy(), source=source, most=0).kind is None
    nothing = rows([NAN, NAN, NAN])
    assert distribution(nothing, nothing.copy(), source=source, most=0).kind is None
    found = distribution(half, rows([0.25, 0.5, 0.25]), source=source, most=1)
    assert (found.kind, found.worst[0].index) == ("nan", (0, 1))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_probabilities_of_few_bits_still_sum_to_one(dtype: Any) -> None:
    logits = np.random.default_rng(3).normal(size=(200, 10)) * 3
    exact = softmax(logits, axis=-1)
    found = distribution(exact.astype(dtype), exact.astype(dtype), source="probabilities", most=0)
    assert found.kind is None


def test_a_mismatch_tells_the_divergence_and_the_bound() -> None:
    found = distribution(rows([1, 0]), rows([0.5, 0.5]), source="probabilities", most=0.25)
    assert found.worst == (Element((0,), "0.25 bits or less", "0.311278"),)
    assert found.score == pytest.approx(0.311278, abs=1e-6)

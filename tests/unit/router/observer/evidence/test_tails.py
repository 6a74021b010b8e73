"""Tails of the beta distribution, as logarithms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc, betaincc

from coalmine_router.observer.evidence.tails import log_far_tail, log_tails

# To 60 digits, by x^a (1-x)^b / (a B(a, b)) 2F1(a+b, 1; a+1; x).
BELOW = [
    (500.0, 1500.0, 0.01, -1197.11983546040941),
    (300.5, 99_700.25, 0.0001, -736.220168297480018),
    (5_000.0, 5_000.0, 0.25, -1443.2416485130252),
]
ABOVE = [
    (1.0, 200_000.0, 0.01, -2010.06717070028824),
    (20_001.0, 80_001.0, 0.25, -704.648662623234596),
]


@pytest.mark.parametrize(("a", "b", "x", "expected"), BELOW)
def test_a_lower_tail_too_small_for_a_number_has_its_logarithm(
    a: float, b: float, x: float, expected: float
) -> None:
    assert betainc(a, b, x) < 1e-300
    assert log_tails(a, b, x)[0] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("a", "b", "x", "expected"), ABOVE)
def test_an_upper_tail_too_small_for_a_number_has_its_logarithm(
    a: float, b: float, x: float, expected: float
) -> None:
    assert betaincc(a, b, x) < 1e-300
    assert log_tails(a, b, x)[1] == pytest.approx(expected, rel=1e-11)


@given(st.floats(0.5, 3_000), st.floats(0.5, 3_000), st.floats(0.05, 0.9))
def test_the_far_tails_fraction_is_scipys_tail_where_that_is_a_number(
    a: float, b: float, below_mean: float
) -> None:
    x = below_mean * a / (a + b)
    if betainc(a, b, x) > 1e-280:
        found = log_far_tail(a, b, math.log(x), math.log1p(-x))
        assert found == pytest.approx(math.log(betainc(a, b, x)), rel=1e-9, abs=1e-9)


def test_tails_of_arrays_are_those_of_their_elements() -> None:
    a, b = np.array([1.0, 500.0, 20.0]), np.array([200_000.0, 1500.0, 80.0])
    whole = log_tails(a, b, 0.01)
    for place in range(3):
        alone = log_tails(a[place], b[place], 0.01)
        assert [float(tail[place]) for tail in whole] == [float(tail) for tail in alone]


def test_a_sure_tail_is_nearly_nothing_and_never_above_it() -> None:
    below, above = log_tails(1.0, 200_000.0, 0.01)
    assert below == 0.0
    assert above < -2_000

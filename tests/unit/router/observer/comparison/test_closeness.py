"""When two arrays count as equal, element by element."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from coalmine.tensors import Array
from coalmine_router.observer.comparison.closeness import (
    TOLERANCES,
    close,
    exact,
    relative,
    tolerance_of,
)
from coalmine_router.observer.comparison.rule_result import BLOCK, RuleResult, ShapeMismatch

INF, NAN = math.inf, math.nan
DTYPES = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16, "FP32": np.float32, "FP64": np.float64}


def f64(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def of_bytes(*values: bytes) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("reference", "candidate", "differs"),
    [
        (1.0, 1.5, False),  # 0.5 = 0.25 + 0.25·1.0, to the bit: not above
        (1.0, np.nextafter(1.5, 2), True),
        (1.0, 0.5, False),
        (1.0, 0.499999, True),
        (-2.0, -2.75, False),
        (-2.0, -2.8, True),
        (0.0, 0.25, False),
        (0.0, -0.26, True),
        (0.0, -0.0, False),
        (2.0, 1.25, False),
        (1.25, 2.0, True),  # the reference alone gives the scale
    ],
)
def test_a_difference_above_atol_plus_rtol_times_the_reference_is_a_mismatch(
    reference: float, candidate: float, differs: bool
) -> None:
    found = close(f64(reference), f64(candidate), rtol=0.25, atol=0.25)
    assert bool(found.differing) is differs
    assert found.max_abs_diff == pytest.approx(abs(candidate - reference))


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        (NAN, NAN, None),
        (NAN, 1.0, "nan"),
        (1.0, NAN, "nan"),
        (INF, NAN, "nan"),
        (NAN, -INF, "nan"),
        (INF, INF, None),
        (-INF, -INF, None),
        (INF, -INF, "value"),
        (INF, 1e308, "value"),
        (1.0, INF, "value"),
    ],
)
@pytest.mark.parametrize("rtol", [0.0, 1e-3, 1e30])
def test_nan_equals_nan_and_an_infinity_equals_itself_only(
    reference: float, candidate: float, kind: str | None, rtol: float
) -> None:
    found = close(f64(0.0, reference), f64(0.0, candidate), rtol=rtol, atol=1e-8)
    assert found.kind == kind
    assert found.differing == (kind is not None)
    assert not math.isnan(found.max_abs_diff)


def test_finite_values_whose_distance_overflows_differ() -> None:
    found = close(f64(1e308), f64(-1e308), rtol=0.1, atol=0.1)
    assert (found.kind, found.max_abs_diff) == ("value", INF)


@pytest.mark.parametrize("datatype", list(TOLERANCES))
def test_each_float_type_has_a_tolerance_that_its_own_rounding_passes(datatype: str) -> None:
    values = np.linspace(-4, 4, 97).astype(DTYPES[datatype])
    step = {"FP16": 2**-11, "BF16": 2**-8, "FP32": 2**-24, "FP64": 2**-53}[datatype]
    rounded = (values.astype(np.float64) * (1 + step)).astype(DTYPES[datatype])
    rtol, atol = tolerance_of(datatype, None, None)
    assert close(values, rounded, rtol=rtol, atol=atol).differing == 0
    assert close(values, values * DTYPES[datatype](1.1), rtol=rtol, atol=atol).differing == 96


def test_a_given_tolerance_takes_the_place_of_the_types_own() -> None:
    assert tolerance_of("FP32", None, None) == (1.3e-6, 1e-5)
    assert tolerance_of("FP32", 0.5, None) == (0.5, 1e-5)
    assert tolerance_of("FP32", None, 0.0) == (1.3e-6, 0.0)
    assert tolerance_of("INT64", None, None) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("reference", "candidate", "max_abs_diff"),
    [
        (np.array([1, 2**53], np.int64), np.array([1, 2**53 + 1], np.int64), 1),
        (np.array([0, -(2**63)], np.int64), np.array([0, 2**63 - 1], np.int64), 2**64 - 1),
        (np.array([0, 2**64 - 1], np.uint64), np.array([0, 0], np.uint64), 2**64 - 1),
        (np.array([3, -128], np.int8), np.array([3, 127], np.int8), 255),
        (np.array([True, False]), np.array([True, True]), 1),
        (of_bytes(b"a", b"b\xff"), of_bytes(b"a", b"b"), 0),
    ],
    ids=["past 2^53", "overflow", "unsigned", "int8", "bool", "bytes"],
)
def test_integers_bools_and_bytes_are_compared_exactly_under_any_rule(
    reference: Array, candidate: Array, max_abs_diff: int
) -> None:
    for found in (close(reference, candidate, rtol=9.0, atol=9.0), exact(reference, candidate)):
        assert (found.differing, found.elements, found.kind) == (1, 2, "value")
        assert found.max_abs_diff == float(max_abs_diff)
        assert found.worst[0].index == (1,)


def test_exact_is_to_the_bit_but_for_nan() -> None:
    other_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    assert exact(f64(NAN), other_nan).kind is None
    assert exact(f64(0.0), f64(-0.0)).differing == 1
    assert exact(f64(1.0), np.nextafter(f64(1.0), 2)).differing == 1
    assert exact(f64(INF, -INF), f64(INF, -INF)) == RuleResult(2)
    assert exact(f64(NAN), f64(1.0)).kind == "nan"


def test_exact_compares_the_sixteen_bit_types_too() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = np.array([1.0, 2.0], dtype=dtype)
        assert exact(values, values.copy()).differing == 0
        found = exact(values, np.array([1.0, 2.5], dtype=dtype))
        assert (found.differing, found.max_abs_diff) == (1, 0.5)


def test_the_worst_eight_are_told_nan_first_then_by_distance() -> None:
    reference = np.zeros((4, 5))
    candidate = np.arange(20.0).reshape(4, 5)
    candidate[0, 2] = NAN
    candidate[0, 1] = -INF
    found = close(reference, candidate, rtol=0, atol=0.5)
    assert found.differing == 19
    assert found.kind == "nan"
    assert found.max_abs_diff == INF
    assert [each.index for each in found.worst] == [
        *((0, 2), (0, 1)),
        *((3, 4), (3, 3), (3, 2), (3, 1), (3, 0), (2, 4)),
    ]
    assert (found.worst[0].expected, found.worst[0].actual) == ("0.0", "nan")


def test_of_equally_bad_elements_the_first_come_first() -> None:
    found = exact(np.zeros(100, np.int32), np.ones(100, np.int32))
    assert [each.index for each in found.worst] == [(each,) for each in range(8)]


def test_values_are_told_as_their_type_writes_them() -> None:
    assert close(f64(0.1), f64(0.7), rtol=0, atol=0).worst[0].expected == "0.1"
    told = exact(of_bytes(b"caf\xc3\xa9"), of_bytes(b"\xff" + b"x" * 10_000)).worst[0]
    assert told.expected == "café"
    assert told.actual.startswith("\\xffxxx")
    assert len(told.actual) < 300


@pytest.mark.parametrize("shape", [(0,), (0, 10), (3, 0, 2), (1, 1, 1)])
def test_arrays_of_any_shape_can_be_compared(shape: tuple[int, ...]) -> None:
    for array in (np.zeros(shape), np.zeros(shape, bool), np.full(shape, b"", dtype=object)):
        assert close(array, array.copy(), rtol=0, atol=0) == RuleResult(array.size)
        assert exact(array, array.copy()) == RuleResult(array.size)


@pytest.mark.parametrize("rule", [exact, lambda r, c: close(r, c, rtol=0, atol=0)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_unequal_shapes_are_refused_even_where_they_would_broadcast(rule: Any, dtype: Any) -> None:
    with pytest.raises(ShapeMismatch):
        rule(np.zeros((1, 3), dtype), np.zeros((2, 3), dtype))
    with pytest.raises(ShapeMismatch):
        rule(np.zeros((), dtype), np.zeros((), dtype))


floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, INF, -INF, NAN, 1.0, 1.0000001])


@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]))
def test_close_agrees_with_numpy_and_is_reflexive(data: st.DataObject, dtype: Any) -> None:
    shape = data.draw(st_np.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    values = st_np.arrays(np.float64, shape, elements=floats)
    with np.errstate(over="ignore"):
        reference = data.draw(values).astype(dtype)
        candidate = data.draw(values).astype(dtype)
    rtol = data.draw(st.sampled_from([0.0, 1e-5, 0.1]))
    atol = data.draw(st.sampled_from([0.0, 1e-6, 1.0]))
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    expected = np.asarray(~np.isclose(c, r, rtol=rtol, atol=atol, equal_nan=True))

    found = close(reference, candidate, rtol=rtol, atol=atol)

    assert found.differing == np.count_nonzero(expected)
    if found.rows_differ is not None:
        assert list(found.rows_differ) == expected.reshape(len(expected), -1).any(axis=1).tolist()
    assert all(expected[each.index] for each in found.worst)
    assert close(reference, reference, rtol=0, atol=0).differing == 0
    assert (
        exact(reference, candidate).differing
        >= close(reference, candidate, rtol=0, atol=0).differing
    )


# ---------------------------------------------------------------- rows and blocks


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize("row_elements", [1, 7, 1000, BLOCK, BLOCK + 3])
def test_rows_that_differ_are_found_in_whichever_block_they_lie(
    dtype: Any, row_elements: int
) -> None:
    rows = 3 * BLOCK // row_elements + 2
    reference = np.zeros((rows, row_elements), dtype)
    candidate = reference.copy()
    chosen = sorted({0, rows // 3, rows // 2, rows - 1})
    for row in chosen:
        candidate[row, row % row_elements] = 1
    for rule in (exact, lambda r, c: close(r, c, rtol=0, atol=0)):
        found = rule(reference, candidate)
        assert found.rows_differ is not None
        assert list(np.flatnonzero(found.rows_differ)) == chosen
        assert [each.index for each in found.worst] == [(row, row % row_elements) for row in chosen]


def test_the_worst_of_all_blocks_are_told_worst_first() -> None:
    reference = np.zeros((4, BLOCK), np.float32)
    candidate = np.linspace(1, 2, 4 * BLOCK, dtype=np.float32).reshape(4, BLOCK)
    candidate[1, 5] = 9
    candidate[0, 3] = NAN
    found = close(reference, candidate, rtol=0, atol=0.5)
    assert found.differing == 4 * BLOCK
    assert found.rows_differ is not None
    assert found.rows_differ.all()
    assert [each.index for each in found.worst[:3]] == [(0, 3), (1, 5), (3, BLOCK - 1)]
    assert found.max_abs_diff == 9


def test_a_row_that_spans_blocks_is_one_row() -> None:
    reference = np.zeros((2, 3 * BLOCK), np.float32)
    candidate = reference.copy()
    candidate[1] = 1
    found = close(reference, candidate, rtol=0, atol=0)
    assert found.rows_differ is not None
    assert list(found.rows_differ) == [False, True]


# ---------------------------------------------------------------- relative


@pytest.mark.parametrize(
    ("reference", "candidate", "differs"),
    [
        (100.0, 125.0, False),
        (100.0, 126.0, True),
        (-100.0, -75.0, False),
        (-100.0, -74.0, True),
        (125.0, 100.0, False),  # the reference alone is the measure
        (100.0, 133.0, True),
        (0.0, 0.25, False),  # the floor is 1
        (0.0, 0.26, True),
        (0.5, 0.75, False),
    ],
)
def test_relative_measures_against_the_reference_or_its_floor(
    reference: float, candidate: float, differs: bool
) -> None:
    found = relative(f64(reference), f64(candidate), most=0.25, floor=1.0)
    assert bool(found.differing) is differs
    assert found.max_abs_diff == pytest.approx(abs(candidate - reference))


def test_the_worst_under_relative_is_the_largest_share_and_its_score() -> None:
    found = relative(f64(1000.0, 1.0, 10.0), f64(1100.0, 3.0, 10.0), most=0.05, floor=1e-6)
    assert [each.index for each in found.worst] == [(1,), (0,)]
    assert found.score == pytest.approx(2.0)
    assert found.max_abs_diff == 100


def test_without_a_floor_whatever_is_beside_a_zero_is_a_mismatch_without_a_score() -> None:
    found = relative(f64(0.0, 0.0), f64(0.0, 1e-300), most=1e9, floor=0.0)
    assert (found.differing, found.kind, found.score) == (1, "value", None)


@pytest.mark.parametrize(
    ("reference", "candidate", "kind"),
    [
        *((NAN, NAN, None), (NAN, 1.0, "nan"), (1.0, NAN, "nan"), (INF, INF, None)),
        *((INF, -INF, "value"), (INF, 1.0, "value"), (1.0, INF, "value")),
    ],
)
def test_relative_treats_nan_and_infinity_as_close_does(
    reference: float, candidate: float, kind: str | None
) -> None:
    found = relative(f64(1.0, reference), f64(1.0, candidate), most=1e9, floor=1e-6)
    assert found.kind == kind
    assert found.score is None


def test_relative_takes_integers_too() -> None:
    found = relative(np.array([100, 200]), np.array([101, 230]), most=0.1, floor=1)
    assert found.differing == 1
    assert found.score == pytest.approx(0.15)

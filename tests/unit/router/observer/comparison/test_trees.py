"""Strings that hold JSON."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.tensors import Array
from coalmine_router.observer.comparison.rule_result import RuleResult
from coalmine_router.observer.comparison.trees import json_trees, tree_differences, tree_tolerance


def texts(*values: bytes) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def of(reference: bytes, candidate: bytes, *ignore: str, rtol: float = 0, atol: float = 0) -> Any:
    return json_trees(texts(reference), texts(candidate), tree_tolerance(rtol, atol, ignore))


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (b'{"a": 1, "b": [2, 3]}', b'{"b":[2,3],"a":1}'),
        (b"1", b"1.0"),
        (b"[NaN, Infinity]", b"[NaN,  Infinity]"),
        (b'"\\u00e9"', '"é"'.encode()),
        (b"123456789012345678901234567890", b"123456789012345678901234567890 "),
        (b"not JSON", b"not JSON"),
        (b'{"a": 1, "a": 2}', b'{"a": 2}'),
        (b"null", b" null"),
    ],
)
def test_trees_are_equal_however_they_are_written(reference: bytes, candidate: bytes) -> None:
    assert of(reference, candidate) == RuleResult(1)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected", "actual"),
    [
        (b'{"a": 1}', b'{"a": 2}', "$.a: 1", "$.a: 2"),
        (b'{"a": {"b": [0, 1]}}', b'{"a": {"b": [0, 2]}}', "$.a.b[1]: 1", "$.a.b[1]: 2"),
        (b'{"a": 1}', b"{}", "$.a: 1", "$.a: nothing there"),
        (b"{}", b'{"a": 1}', "$.a: nothing there", "$.a: 1"),
        (b"[1]", b"[1, 2]", "$[1]: nothing there", "$[1]: 2"),
        (b"[1, 2]", b"[2, 1]", "$[0]: 1", "$[0]: 2"),
        (b"true", b"1", "$: true", "$: 1"),
        (b"null", b"0", "$: null", "$: 0"),
        (b"0", b"false", "$: 0", "$: false"),
        (b'"1"', b"1", '$: "1"', "$: 1"),
        (b"[]", b"{}", "$: an array of 0", "$: an object of 0"),
        (b"[1]", b'"x"', "$: an array of 1", '$: "x"'),
        (b"NaN", b"1", "$: NaN", "$: 1"),
        (b"Infinity", b"-Infinity", "$: Infinity", "$: -Infinity"),
        (b"{", b"{}", "{", "{}"),
        (b"{}", b"not JSON", "{}", "not JSON"),
        (b"\xff", b"\xfe", "\\xff", "\\xfe"),
        (b"1" * 5000, b"2" * 5000, "1" * 200, "2" * 200),
    ],
)
def test_what_differs_is_told_with_its_place(
    reference: bytes, candidate: bytes, expected: str, actual: str
) -> None:
    found = of(reference, candidate)
    assert (found.differing, found.kind) == (1, "value")
    assert (found.worst[0].expected, found.worst[0].actual) == (expected, actual)


@pytest.mark.parametrize(
    ("ignore", "differs"),
    [
        ((), True),
        (("$.meta.ts",), True),
        (("$.meta.ts", "$.items[*].id"), False),
        (("$.meta", "$.items[*].*"), False),
        (("$.*",), False),
        (("$.meta.ts", "$.items[0].id"), True),
        (("$.meta.ts", "$.items[0].id", "$.items[1].id"), False),
        (("$['meta']['ts']", "$['items'][*]['id']"), False),
        (("$.ts", "$.id"), True),
    ],
)
def test_what_lies_at_an_ignored_path_may_differ(ignore: tuple[str, ...], differs: bool) -> None:
    reference = b'{"meta": {"ts": 1, "v": 2}, "items": [{"id": 1}, {"id": 2}]}'
    candidate = b'{"meta": {"ts": 9, "v": 2}, "items": [{"id": 3}, {}]}'
    assert bool(of(reference, candidate, *ignore).differing) is differs


def test_a_key_that_is_a_number_is_no_place_in_an_array() -> None:
    assert of(b'{"0": 1}', b'{"0": 2}', "$[0]").differing == 1
    assert of(b'{"0": 1}', b'{"0": 2}', "$.0").differing == 0


@pytest.mark.parametrize(
    ("candidate", "differs"),
    [(b"[1.05, 3]", False), (b"[1.2, 3]", True), (b"[1.0, 1e999]", True), (b"[1.0, true]", True)],
)
def test_numbers_may_differ_within_tolerance(candidate: bytes, differs: bool) -> None:
    found = of(b"[1.0, 3.0]", candidate, rtol=0.05, atol=0.01)
    assert bool(found.differing) is differs


def test_integers_beyond_all_floats_are_compared() -> None:
    huge = b"1" + b"0" * 400
    assert of(huge, huge + b" ").differing == 0
    assert of(huge, b"1.5", rtol=0.1).differing == 1


def test_each_string_is_an_element_and_its_first_places_are_told() -> None:
    reference = texts(b"[0, 0]", b"{}", b"[1]").reshape(3, 1)
    candidate = texts(b"[1, 1]", b" {}", b"[2]").reshape(3, 1)
    found = json_trees(reference, candidate, tree_tolerance(0, 0, ()))
    assert (found.elements, found.differing) == (3, 2)
    assert found.rows_differ is not None
    assert list(found.rows_differ) == [True, False, True]
    assert [(each.index, each.expected) for each in found.worst] == [
        *(((0, 0), "$[0]: 0"), ((0, 0), "$[1]: 0"), ((2, 0), "$[0]: 1")),
    ]


def test_of_many_differences_eight_are_told() -> None:
    found = of(json.dumps([0] * 1000).encode(), json.dumps([1] * 1000).encode())
    assert len(found.worst) == 8


def test_trees_that_are_deep_are_compared_or_told_as_text() -> None:
    for depth in (500, 100_000):
        found = of(b"[" * depth + b"1" + b"]" * depth, b"[" * depth + b"2" + b"]" * depth)
        assert found.differing == 1


def test_half_of_a_surrogate_pair_can_still_be_written_down() -> None:
    found = of(b'{"\\ud800": "\\ud800"}', b'{"\\ud800": "x"}')
    found.worst[0].expected.encode()


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=2), below),
    max_leaves=8,
)


@given(trees, trees)
def test_a_tree_equals_itself_and_what_differs_does_so_both_ways(one: Any, other: Any) -> None:
    what = tree_tolerance(0, 0, ())
    assert not list(tree_differences(one, json.loads(json.dumps(one)), what))
    assert bool(list(tree_differences(one, other, what))) is bool(
        list(tree_differences(other, one, what))
    )

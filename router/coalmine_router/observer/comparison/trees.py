"""The rule json: compares strings that hold JSON as trees. Pure."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from coalmine.tensors import Array
from coalmine_router.config.json_path import Step, path_steps
from coalmine_router.observer.comparison.result import Element
from coalmine_router.observer.comparison.rule_result import (
    WORST_MAX,
    Mask,
    RuleResult,
    as_text,
    check_shapes,
    index_of,
)

_ABSENT: Final = object()

Paths = tuple[tuple[Step, ...], ...]


class TreeTolerance(NamedTuple):
    """What trees may differ by: numbers as with close, and all at or below an ignored path."""

    rtol: float = 0.0
    atol: float = 0.0
    ignored: Paths = ()


class _Node(NamedTuple):
    """Two values at one place, and the rest of the ignored paths below it."""

    place: tuple[str | int, ...]
    expected: Any
    actual: Any
    ignored: Paths


class TreeDifference(NamedTuple):
    """A place where the trees differ, and both values as text."""

    path: str
    expected: str
    actual: str


def tree_tolerance(rtol: float, atol: float, ignore: Sequence[str]) -> TreeTolerance:
    """Return the tolerance that a rule's settings ask for."""
    return TreeTolerance(rtol, atol, tuple(path_steps(path) for path in ignore))


def json_trees(reference: Array, candidate: Array, within: TreeTolerance) -> RuleResult:
    """Return which strings hold other JSON than the reference's.

    Shapes: both (rows, …), equal; object arrays of `bytes`. The order of keys doesn't matter, that
    of arrays does. true is not 1; 1 is 1.0; NaN, which Python writes, equals NaN. Numbers may
    differ by atol + rtol·|r|. A string that is no JSON equals the same bytes only.
    Raises ShapeMismatch.
    """
    check_shapes(reference, candidate)
    differ = np.zeros(reference.size, bool)
    worst: list[Element] = []
    for at, (r, c) in enumerate(zip(reference.flat, candidate.flat, strict=True)):
        if r == c:
            continue
        found = _first_differences(r, c, within, most=max(1, WORST_MAX - len(worst)))
        differ[at] = bool(found)
        worst += (_element_of(index_of(at, reference.shape), each) for each in found)
    return _tree_result(reference.shape, differ, worst[:WORST_MAX])


def _tree_result(shape: tuple[int, ...], differ: Mask, worst: list[Element]) -> RuleResult:
    if not worst:
        return RuleResult(differ.size)
    return RuleResult(
        elements=differ.size,
        differing=int(np.count_nonzero(differ)),
        kind="value",
        worst=tuple(worst),
        rows_differ=np.asarray(differ.reshape(shape[0], -1).any(axis=1)),
    )


def _element_of(index: tuple[int, ...], apart: TreeDifference) -> Element:
    before = f"{apart.path}: " if apart.path else ""
    return Element(index, as_text(before + apart.expected), as_text(before + apart.actual))


def _first_differences(
    reference: bytes, candidate: bytes, within: TreeTolerance, *, most: int
) -> list[TreeDifference]:
    """Return the first `most` places that differ, in the order of the reference."""
    try:
        expected, actual = json.loads(reference), json.loads(candidate)
    except (ValueError, RecursionError):  # no text, no JSON, digits without end, or too deep
        return [TreeDifference("", as_text(reference), as_text(candidate))]
    return list(islice(tree_differences(expected, actual, within), most))


def tree_differences(expected: Any, actual: Any, within: TreeTolerance) -> Iterator[TreeDifference]:
    """Yield where two trees of any depth differ, in the order of the first."""
    waiting = [_Node((), expected, actual, within.ignored)]
    while waiting:
        node = waiting.pop()
        below = _child_nodes(node)
        if below is not None:
            waiting += reversed(below)
        elif not _is_equal_leaf(node.expected, node.actual, within):
            yield TreeDifference(
                _path_text(node.place), _value_text(node.expected), _value_text(node.actual)
            )


def _child_nodes(node: _Node) -> list[_Node] | None:
    """Return the pairs of values inside two objects or two arrays; None for anything else."""
    expected, actual = node.expected, node.actual
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = [*expected, *(key for key in actual if key not in expected)]
        pairs = [(key, expected.get(key, _ABSENT), actual.get(key, _ABSENT)) for key in keys]
    elif isinstance(expected, list) and isinstance(actual, list):
        pairs = [
            (at, _value_at(expected, at), _value_at(actual, at))
            for at in range(max(len(expected), len(actual)))
        ]
    else:
        return None
    return [below for pair in pairs if (below := _child_node(node, *pair)) is not None]


def _value_at(values: list[Any], at: int) -> Any:
    return values[at] if at < len(values) else _ABSENT


def _child_node(node: _Node, step: str | int, expected: Any, actual: Any) -> _Node | None:
    """Return the pair of values one step below; None where it is ignored."""
    left = tuple(path[1:] for path in node.ignored if path[0] is None or _fits_step(path[0], step))
    if () in left:
        return None
    return _Node((*node.place, step), expected, actual, left)


def _fits_step(wanted: Step, step: str | int) -> bool:
    return type(wanted) is type(step) and wanted == step


def _is_equal_leaf(expected: Any, actual: Any, within: TreeTolerance) -> bool:
    if not (_is_number(expected) and _is_number(actual)):
        return type(expected) is type(actual) and expected == actual
    if expected == actual or (expected != expected and actual != actual):  # noqa: PLR0124 - NaN
        return True
    try:
        apart = abs(actual - expected)
        return bool(math.isfinite(apart) and apart <= within.atol + within.rtol * abs(expected))
    except OverflowError:  # an integer beyond all floats
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _path_text(place: tuple[str | int, ...]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _value_text(value: Any) -> str:
    if value is _ABSENT:
        return "nothing there"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'an array'} of {len(value)}"
    return as_text(json.dumps(value, ensure_ascii=False))

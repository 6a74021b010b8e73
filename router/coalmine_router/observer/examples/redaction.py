"""Removes the values that a route doesn't allow to be kept. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from coalmine.inference import inference_pb2 as oip
from coalmine_router.config.copies_section import Capture, KeptConfig
from coalmine_router.observer.comparison.result import Comparison, Difference, Element

# From least to most.
CAPTURES: Final[Sequence[Capture]] = ("none", "shapes", "full")
# Differences of these kinds hold names of datatypes and shapes, no values.
_OF_SHAPES: Final = frozenset({"missing", "extra", "datatype", "shape"})


class KeepSettings(Protocol):
    """A route's settings for its examples."""

    @property
    def capture(self) -> Capture:
        """How much of a mismatch is kept."""
        ...

    @property
    def kept(self) -> KeptConfig:
        """How many, how long, and of what size."""
        ...


def redacted_comparison(comparison: Comparison, capture: Capture) -> Comparison:
    """Return the comparison without what `capture` forbids. What differs and how far stays.

    Below `full`, elements of tensors are removed, and the messages of statuses, which may quote a
    request. With `none`, datatypes and shapes are removed too.
    """
    if capture == "full":
        return comparison
    return replace(
        comparison,
        differences=tuple(_redacted_difference(each, capture) for each in comparison.differences),
        outputs=tuple(
            replace(each, difference=_redacted_difference(each.difference, capture))
            if each.difference
            else each
            for each in comparison.outputs
        ),
    )


def _redacted_difference(difference: Difference, capture: Capture) -> Difference:
    worst = tuple(_redacted_element(each, difference.kind, capture) for each in difference.worst)
    return replace(difference, worst=worst)


def _redacted_element(element: Element, kind: str, capture: Capture) -> Element:
    if kind == "status":
        return replace(
            element, expected=_code_of(element.expected), actual=_code_of(element.actual)
        )
    if kind in _OF_SHAPES and capture == "shapes":
        return element
    return replace(element, expected="", actual="")


def _code_of(status: str) -> str:
    return status.partition(":")[0]


def request_without_inputs(body: bytes, names: Collection[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return a ModelInferRequest without the inputs of these names, and the names it had of them.

    Where the inputs' bytes can't be told apart, the body is empty, and all names are returned.
    """
    if not names:
        return body, ()
    try:
        request = oip.ModelInferRequest.FromString(body)
    except DecodeError:
        return b"", tuple(names)
    if request.raw_input_contents and len(request.raw_input_contents) != len(request.inputs):
        return b"", tuple(names)
    found = tuple(dict.fromkeys(each.name for each in request.inputs if each.name in names))
    if not found:
        return body, ()
    _remove_inputs(request, found)
    return request.SerializeToString(), found


def _remove_inputs(request: oip.ModelInferRequest, names: Collection[str]) -> None:
    for at in reversed(range(len(request.inputs))):
        if request.inputs[at].name in names:
            del request.inputs[at]
            if request.raw_input_contents:
                del request.raw_input_contents[at]
    # A field unknown to this program may hold anything.
    request.DiscardUnknownFields()


# ---------------------------------------------------------------- policies

# How much is captured, and which inputs are dropped.
Policy = tuple[Capture, frozenset[str]]


def may_stay(now: Policy, then: Policy) -> bool:
    """Return whether what was kept under policy `then` may be kept under policy `now`."""
    (capture, dropped), (capture_then, dropped_then) = now, then
    if CAPTURES.index(capture_then) > CAPTURES.index(capture):
        return False
    return capture_then != "full" or dropped <= dropped_then

"""What a route lets be kept of the values that pass through it. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from coalmine.inference import inference_pb2 as oip
from coalmine_router.config.copies_section import Capture, KeptConfig
from coalmine_router.observer.comparison.result import Comparison, Difference, Element

# From least to most.
CAPTURES: Final[Sequence[Capture]] = ("none", "shapes", "full")
# Of these kinds, what was expected and what came are names of datatypes, and shapes.
_OF_SHAPES: Final = frozenset({"missing", "extra", "datatype", "shape"})


class KeepSettings(Protocol):
    """What a route says of its examples."""

    @property
    def capture(self) -> Capture:
        """How much of a mismatch is kept."""
        ...

    @property
    def kept(self) -> KeptConfig:
        """How many, how long, and of what size."""
        ...


def redacted(comparison: Comparison, capture: Capture) -> Comparison:
    """Return the comparison without what `capture` forbids; what differs and how far is left.

    Below `full` no element of a tensor is left, and of a status its code alone: messages quote what
    they complain of. With `none` there are no datatypes and shapes either.
    """
    if capture == "full":
        return comparison
    return replace(
        comparison,
        differences=tuple(_difference(each, capture) for each in comparison.differences),
        outputs=tuple(
            replace(each, difference=_difference(each.difference, capture))
            if each.difference
            else each
            for each in comparison.outputs
        ),
    )


def _difference(difference: Difference, capture: Capture) -> Difference:
    worst = tuple(_element(each, difference.kind, capture) for each in difference.worst)
    return replace(difference, worst=worst)


def _element(element: Element, kind: str, capture: Capture) -> Element:
    if kind == "status":
        return replace(element, expected=_code(element.expected), actual=_code(element.actual))
    if kind in _OF_SHAPES and capture == "shapes":
        return element
    return replace(element, expected="", actual="")


def _code(told: str) -> str:
    return told.partition(":")[0]


def request_without(body: bytes, names: Collection[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return a ModelInferRequest without the inputs of these names, and the names it had of them.

    The body is empty, and all names are returned, where it can't be told which bytes are whose.
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
    return _without(request, found), found


def _without(request: oip.ModelInferRequest, names: Collection[str]) -> bytes:
    for at in reversed(range(len(request.inputs))):
        if request.inputs[at].name in names:
            del request.inputs[at]
            if request.raw_input_contents:
                del request.raw_input_contents[at]
    # A field that this program doesn't know may hold anything.
    request.DiscardUnknownFields()
    return request.SerializeToString()


# ---------------------------------------------------------------- what was allowed when

Policy = tuple[Capture, frozenset[str]]


def allows(now: Policy, then: Policy) -> bool:
    """Return whether what was kept under `then` may be kept still: (capture, inputs dropped)."""
    (capture, dropped), (capture_then, dropped_then) = now, then
    if CAPTURES.index(capture_then) > CAPTURES.index(capture):
        return False
    return capture_then != "full" or dropped <= dropped_then

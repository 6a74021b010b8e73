"""Answers of services that aren't inference: their messages, by their bytes. Pure."""

from typing import Final

from coalmine_router.config.compare_section import CompareConfig, IgnoreRule
from coalmine_router.observer.comparison.result import (
    Comparison,
    Difference,
    Element,
    OutputResult,
)

MESSAGE: Final = "message"

_SHOWN_BYTES: Final = 16


def compare_messages(reference: bytes, candidate: bytes, rules: CompareConfig) -> Comparison:
    """Return whether two messages have the same bytes: one row, of an output named `message`.

    Only a rule `ignore` changes that. Equal messages may be written in different bytes: of those
    with maps, protobuf promises nothing.
    """
    if isinstance(rules.outputs.get(MESSAGE, rules.default), IgnoreRule):
        return Comparison("ignored", outputs=(OutputResult(MESSAGE, "ignored", rule="ignore"),))
    if reference == candidate:
        return Comparison("match", outputs=(OutputResult(MESSAGE, "match", rule="bytes"),), rows=1)
    difference = Difference(MESSAGE, "value", (_first(reference, candidate),), rule="bytes")
    result = OutputResult(MESSAGE, "mismatch", 1, 1, 0.0, "bytes", difference)
    return Comparison("mismatch", "value", (difference,), 1, (result,), 1, 1)


def _first(reference: bytes, candidate: bytes) -> Element:
    """Return the first byte that differs, with some of what follows."""
    at = _common(reference, candidate)
    return Element((at,), _shown(reference, at), _shown(candidate, at))


def _common(reference: bytes, candidate: bytes) -> int:
    """Return how many bytes are the same before the first that differs."""
    low, high = 0, min(len(reference), len(candidate))
    while low < high:
        middle = (low + high + 1) // 2
        if reference[low:middle] == candidate[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shown(message: bytes, at: int) -> str:
    return f"{message[at : at + _SHOWN_BYTES].hex(' ') or 'the end'} ({len(message)} bytes)"

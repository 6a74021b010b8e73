"""Compares answers of services other than inference by their bytes. Pure."""

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


def message_comparison(reference: bytes, candidate: bytes, rules: CompareConfig) -> Comparison:
    """Return whether two messages have the same bytes: one row, of an output named `message`.

    Only a rule `ignore` changes that. Protobuf may write equal messages with maps in different
    bytes.
    """
    if isinstance(rules.outputs.get(MESSAGE, rules.default), IgnoreRule):
        return Comparison("ignored", outputs=(OutputResult(MESSAGE, "ignored", rule="ignore"),))
    if reference == candidate:
        return Comparison("match", outputs=(OutputResult(MESSAGE, "match", rule="bytes"),), rows=1)
    difference = Difference(
        MESSAGE, "value", (_first_difference(reference, candidate),), rule="bytes"
    )
    result = OutputResult(MESSAGE, "mismatch", 1, 1, 0.0, "bytes", difference)
    return Comparison("mismatch", "value", (difference,), 1, (result,), 1, 1)


def _first_difference(reference: bytes, candidate: bytes) -> Element:
    """Return the first byte that differs, with some of what follows."""
    at = _common_bytes(reference, candidate)
    return Element((at,), _excerpt(reference, at), _excerpt(candidate, at))


def _common_bytes(reference: bytes, candidate: bytes) -> int:
    """Return how many bytes are the same before the first that differs."""
    low, high = 0, min(len(reference), len(candidate))
    while low < high:
        middle = (low + high + 1) // 2
        if reference[low:middle] == candidate[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _excerpt(message: bytes, at: int) -> str:
    return f"{message[at : at + _SHOWN_BYTES].hex(' ') or 'the end'} ({len(message)} bytes)"

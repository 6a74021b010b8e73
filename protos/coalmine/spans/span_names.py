"""The names of spans, so that people can read a trace. Pure.

Names are few, so Jaeger's list of operations is a menu of them. A request's own span has the name
of its method. Programs tell spans apart by their attributes, never by these names.
"""

from typing import Final

# Methods and variants may have longer names; a menu has no room for them.
NAME_CHARS_MAX: Final = 128


def span_name(text: str) -> str:
    """Return the name, cut to the greatest length."""
    return text[:NAME_CHARS_MAX]


def call_name(what: str, variant: str) -> str:
    """Return the name of a call: `primary stable`, `fallback stable`, `shadow canary`."""
    return span_name(f"{what} {variant}")


def compare_name(candidate: str, outcome: str) -> str:
    """Return the name of a comparison: `compare canary: mismatch`."""
    return _name_with_ending("compare", candidate, outcome)


def verdict_name(candidate: str, word: str) -> str:
    """Return the name of a verdict that became another: `verdict canary: fail`."""
    return _name_with_ending("verdict", candidate, word)


def _name_with_ending(what: str, name: str, word: str) -> str:
    """Return the name, of which the word at the end is the last to be cut."""
    room = NAME_CHARS_MAX - len(f"{what} : {word}")
    return span_name(f"{what} {name[: max(room, 0)]}: {word}")

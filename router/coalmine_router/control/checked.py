"""What callers may ask for: bounds on everything that comes in. Pure."""

from typing import Final

from coalmine.errors import InvalidRequest

NAME_MAX: Final = 128
REASON_MAX: Final = 1_000
LIMIT_MAX: Final = 1_000

_INTERVAL_MS: Final = 1_000
_INTERVAL_MS_MIN: Final = 100
_INTERVAL_MS_MAX: Final = 3_600_000


def one_line_text(what: str, value: str, length_max: int) -> str:
    """Return `value`. Raises InvalidRequest where it is too long, or more than one plain line."""
    if len(value) > length_max:
        raise InvalidRequest(f"{what}: at most {length_max} characters, got {len(value)}")
    if not value.isprintable():
        raise InvalidRequest(f"{what}: expected one line of plain text")
    return value


def plain_name(what: str, value: str) -> str:
    """Return `value`, a name. Raises InvalidRequest where it is empty or too long to be one."""
    if not value:
        raise InvalidRequest(f"{what}: missing")
    return one_line_text(what, value, NAME_MAX)


def actor(said: str, known: str) -> str:
    """Return who asks, for the history: first who it is proved to be, then who it says it is.

    A token's name is one word, so what a caller says of itself can't pass for one.
    """
    if not known or said in {"", known}:
        return known or said
    return f"{printable_name(known)} ({said})"


def printable_name(value: str) -> str:
    """Return the text as one line that can be a name: of a certificate it may be anything."""
    return "".join(each if each.isprintable() else "?" for each in value)[:NAME_MAX]


def limit_or(value: int, otherwise: int) -> int:
    """Return how many to answer with; 0 asks for `otherwise`. Raises InvalidRequest."""
    if value > LIMIT_MAX:
        raise InvalidRequest(f"limit: at most {LIMIT_MAX}, got {value}")
    return value or otherwise


def interval_s(value_ms: int) -> float:
    """Return seconds between two answers; 0 asks for one second. Raises InvalidRequest."""
    interval_ms = value_ms or _INTERVAL_MS
    if not _INTERVAL_MS_MIN <= interval_ms <= _INTERVAL_MS_MAX:
        raise InvalidRequest(
            f"interval_ms: expected {_INTERVAL_MS_MIN} to {_INTERVAL_MS_MAX}, got {interval_ms}"
        )
    return interval_ms / 1_000

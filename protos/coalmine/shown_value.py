"""Values and foreign text, made safe for one line of output. Pure."""

import reprlib
from collections.abc import Iterable
from typing import Final

_SHOWN_CHARS_MAX: Final = 100


def short_repr(value: object) -> str:
    """Return the repr of `value`, cut to 100 characters."""
    if isinstance(value, str):
        value = value[: _SHOWN_CHARS_MAX + 1]
    text = _REPR.repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"


def printable(text: str) -> str:
    """Return `text` with what a terminal would obey, rather than show, spelt out."""
    return text if text.isprintable() else "".join(_escaped_chars(text))


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with what a terminal would obey spelt out."""
    return printable(" ".join(text.split()))


def _escaped_chars(text: str) -> Iterable[str]:
    for char in text:
        yield char if char.isprintable() else char.encode("unicode_escape").decode()


_REPR: Final = reprlib.Repr()
_REPR.maxlevel = 8
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 2 * _SHOWN_CHARS_MAX
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxdict = 8

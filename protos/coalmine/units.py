"""Times and sizes as people write them. Pure."""

import re
from decimal import Decimal
from typing import Final

from coalmine.shown_value import short_repr

_UNITS_NS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_UNITS_BYTES: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
# As people write it: ASCII digits, no sign, no exponent, no zero in front of others.
WHOLE: Final = r"(?:0|[1-9][0-9]*)"
DECIMAL: Final = rf"{WHOLE}(?:\.[0-9]+)?"
SIZE: Final = re.compile(rf"({DECIMAL})\s*(KiB|MiB|GiB)")
DURATION: Final = re.compile(rf"({DECIMAL})\s*(ms|s|m|h)")


def is_whole(text: str) -> bool:
    """Return whether a text is a whole number, as people write it."""
    return re.fullmatch(WHOLE, text) is not None


def is_decimal(text: str) -> bool:
    """Return whether a text is a number from 0 on, as people write it."""
    return re.fullmatch(DECIMAL, text) is not None


def duration_ns(value: object) -> int:
    """Return nanoseconds for text such as 2ms, 30s, 1.5m or 1h. Raises ValueError."""
    found = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a duration such as 200ms, 30s or 5m, got {short_repr(value)}")
    return int(Decimal(found[1]) * _UNITS_NS[found[2]])


def size_bytes(value: object) -> int:
    """Return bytes for text such as 16KiB, 64MiB or 1GiB. Raises ValueError."""
    found = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a size such as 16KiB, 64MiB or 1GiB, got {short_repr(value)}")
    return int(Decimal(found[1]) * _UNITS_BYTES[found[2]])

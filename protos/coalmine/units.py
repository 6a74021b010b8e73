"""Times and sizes as people write them. Pure."""

import re
from decimal import Decimal
from typing import Final

from coalmine.shown_value import shortly

_UNITS_NS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_UNITS_BYTES: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB)")
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")


def duration_ns(value: object) -> int:
    """Return nanoseconds for text such as 2ms, 30s, 1.5m or 1h. Raises ValueError."""
    found = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a duration such as 200ms, 30s or 5m, got {shortly(value)}")
    return int(Decimal(found[1]) * _UNITS_NS[found[2]])


def size_bytes(value: object) -> int:
    """Return bytes for text such as 16KiB, 64MiB or 1GiB. Raises ValueError."""
    found = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a size such as 16KiB, 64MiB or 1GiB, got {shortly(value)}")
    return int(Decimal(found[1]) * _UNITS_BYTES[found[2]])

"""Values as JSON. Pure.

Times are ISO 8601 in UTC, null for none. A rate is null where nothing was counted. Numbers that
JSON has no word for are the texts "NaN", "Infinity" and "-Infinity".
"""

import math
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def iso_time(at_ns: int) -> str | None:
    """Return a time as ISO 8601 in UTC, to the microsecond; None for none."""
    if not at_ns:
        return None
    seconds, ns = divmod(at_ns, 1_000_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def number_json(value: float) -> float | str:
    """Return the number, or the text for one that JSON can't hold."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def ratio(part: int, whole: int) -> float | None:
    """Return the share, 0 to 1; None where there is no whole."""
    return part / whole if whole else None

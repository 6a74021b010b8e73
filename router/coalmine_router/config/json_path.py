"""Paths into JSON trees, as a file gives them: $.meta.ts, $.items[*].id, $['a key'], $.rows[0].

They are the part of RFC 9535 that names places, without slices, filters and descent.
"""

import re
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

# A key, a place in an array, or None: any of either.
Step = str | int | None

_STEP: Final = re.compile(
    r"\.(?P<key>[\w-]+)|\['(?P<quoted>[^']*)'\]|\[(?P<place>\d{1,9})\]|(?P<any>\.\*|\[\*\])"
)


@lru_cache(maxsize=1024)
def path_steps(path: str) -> tuple[Step, ...]:
    """Return the steps from the root. Raises ValueError for the root, and where it is no path."""
    found: list[Step] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            break
        found.append(_step_of_match(step))
        at = step.end()
    if not path.startswith("$") or at != len(path) or not found:
        raise ValueError(f"expected a path such as $.meta.ts or $.items[*].id, got {path!r:.100}")
    return tuple(found)


def _step_of_match(found: re.Match[str]) -> Step:
    if found["any"]:
        return None
    if found["place"]:
        return int(found["place"])
    return found["key"] or found["quoted"] or ""


def _checked_json_path(path: str) -> str:
    path_steps(path)
    return path


JsonPath = Annotated[str, StringConstraints(max_length=256), AfterValidator(_checked_json_path)]

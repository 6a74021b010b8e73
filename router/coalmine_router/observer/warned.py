"""What comparing warns of: logged once, counted always."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from coalmine_router.config.copies_section import Capture
from coalmine_router.observer.comparison.result import RuleWarning

_log = structlog.get_logger(__name__)

_KEYS_MAX: Final = 1_024
_OTHER: Final = ("(other)", "(other)", "")


class WarningCounts:
    """Counts warnings by route, kind and what they are about; bounded."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, route: str, warnings: Iterable[RuleWarning], capture: Capture) -> None:
        """Count the warnings of one request; log those that are new, as `capture` allows."""
        for each in warnings:
            key: tuple[str, str, str] = (route, each.kind, each.output)
            if key not in self._counts:
                if len(self._counts) >= _KEYS_MAX:
                    key = _OTHER
                else:
                    said = {"output": each.output, "told": _text_of(each, capture)}
                    known = {name: text for name, text in said.items() if text}
                    _log.warning("comparing", route=route, warning=each.kind, **known)
            self._counts[key] += 1

    def totals(self) -> dict[tuple[str, str], int]:
        """Return how many there were, by route and kind."""
        totals: Counter[tuple[str, str]] = Counter()
        for (route, kind, _), warned in list(self._counts.items()):
            totals[route, kind] += warned
        return dict(totals)


def _text_of(warned: RuleWarning, capture: Capture) -> str:
    """Return what may be logged; a rule that fails quotes what it fails at."""
    if capture == "full" or warned.kind != "rule_failed":
        return warned.text
    return warned.text.partition(":")[0]

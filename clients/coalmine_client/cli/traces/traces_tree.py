"""The spans of a trace as a tree. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from coalmine_client.otlp_spans import Span

# Deeper ones stand at this depth: nobody reads them on a terminal.
_DEPTH_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Branch:
    """A span in its place: `lines` is what is drawn before its name."""

    span: Span
    lines: str


def branches(spans: Sequence[Span]) -> list[Branch]:
    """Return every span once, each below its parent, those beside each other by their beginnings.

    Roots are spans whose parent isn't here: the first of a trace, and those whose files are not
    given. Spans that are each other's parents hang below the first of them.
    """
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: (each.started_ns, each.span_id)):
        children[span.parent_id].append(span)
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_id not in ids]
    roots.sort(key=lambda each: (each.started_ns, each.span_id))
    seen: set[str] = set()
    found = [branch for root in roots for branch in _subtree(root, children, seen)]
    rest = (span for span in spans if span.span_id not in seen)
    return [*found, *(branch for span in rest for branch in _subtree(span, children, seen))]


def _subtree(root: Span, children: dict[str, list[Span]], seen: set[str]) -> Iterator[Branch]:
    # Without recursion: a file may hold a chain of any length.
    waiting = [(root, "", "", 0)]
    while waiting:
        span, own, under, depth = waiting.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        yield Branch(span, own)
        below = children.get(span.span_id, [])
        is_deep = depth >= _DEPTH_MAX
        for place, child in reversed(list(enumerate(below, 1))):
            last = place == len(below)
            corner, bar = ("└─ ", "   ") if last else ("├─ ", "│  ")
            lines = (own, under) if is_deep else (under + corner, under + bar)
            waiting.append((child, *lines, depth + 1))
